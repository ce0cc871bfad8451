"""The one exception for mistakes that the user can mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input, told in one sentence. The command line prints it without a traceback and exits with status 2."""

    on_all_ranks = False  # whether all ranks raise it together, so that none is left waiting: see Comm.together


def counted(number: int, noun: str) -> str:
    """A number of things: 1 rank, 2 ranks."""
    return f"{number} {noun}{'s' * (number != 1)}"


def not_finite(what: str, value: float, step: int, env: int, rank: int) -> str:
    """The sentence about a number of an environment that none can be trained on."""
    return (f"step {step:,}, environment {env} of rank {rank}: {what} is {value}; training stops before it spoils the "
            "policy")


# What other libraries and papers call things, and what they are called here.
OTHER_NAMES = {
    "algo": ("alg",), "algorithm": ("alg",), "env_id": ("env",), "policy": ("network",), "render": ("play",),
    "timesteps": ("num_timesteps",), "total_timesteps": ("num_timesteps",), "total_steps": ("num_timesteps",),
    "num_steps": ("num_timesteps", "nsteps"), "n_steps": ("nsteps",), "horizon": ("nsteps",), "n_envs": ("num_env",),
    "learning_rate": ("lr", "actor_lr", "critic_lr", "step_kl"), "discount": ("gamma",), "gae_lambda": ("lam",),
    "lambda": ("lam",), "timesteps_per_batch": ("nsteps",), "timesteps_per_actorbatch": ("nsteps",),
    "steps_per_epoch": ("nsteps",), "optim_stepsize": ("lr",), "vf_stepsize": ("vf_lr",),
    "optim_batchsize": ("nminibatches",), "optim_epochs": ("noptepochs",),
    "n_epochs": ("noptepochs",), "epochs": ("noptepochs",), "num_epochs": ("noptepochs",),
    "batch_size": ("nminibatches",), "minibatch_size": ("nminibatches",), "clip_range": ("cliprange",),
    "clip_coef": ("cliprange",), "clip_ratio": ("cliprange",), "clip_param": ("cliprange",),
    "clip_range_vf": ("cliprange_vf",), "lr": ("actor_lr", "critic_lr", "step_kl"), "lrschedule": ("lr",),
    "schedule": ("lr",), "entropy_coef": ("ent_coef",), "entcoeff": ("ent_coef",),
    "alpha": ("rms_decay", "prioritized_replay_alpha"), "rprop_alpha": ("rms_decay",),
    "epsilon": ("rms_epsilon", "adam_epsilon"), "rprop_epsilon": ("rms_epsilon",), "rms_prop_eps": ("rms_epsilon",),
    "is_async": ("asynchronous",), "target_kl": ("max_kl",), "cg_max_steps": ("cg_iters",),
    "n_critic_updates": ("vf_iters",), "max_episodes": ("num_timesteps",), "max_iters": ("num_timesteps",),
    "print_freq": ("print_interval",), "verbosity": ("view",), "progress_bar": ("view",),
    "save_interval": ("checkpoint_interval",), "save_freq": ("checkpoint_interval",),
    "checkpoint_freq": ("checkpoint_interval",), "checkpoint_path": ("log_path",), "extra_import": ("env",),
    "tensorboard_log": ("tensorboard",), "tb_log": ("tensorboard",), "eval_freq": ("eval_interval",),
    "n_eval_episodes": ("eval_episodes",), "nb_eval_steps": ("eval_episodes",), "nb_rollout_steps": ("nsteps",),
    "nb_train_steps": ("train_steps",), "gradient_steps": ("train_steps",), "nb_epochs": ("num_timesteps",),
    "nb_epoch_cycles": ("num_timesteps",), "noise_type": ("noise",), "action_noise": ("noise",),
    "value_coef": ("vf_coef",), "grad_clip": ("max_grad_norm",), "clip_norm": ("max_grad_norm",),
    "policy_kwargs": ("sizes", "activation"), "replay_size": ("buffer_size",),
    "target_update_interval": ("target_network_update_freq",), "polyak": ("tau",), "hidden_sizes": ("sizes",),
    "net_arch": ("sizes",), "logdir": ("log_path",), "log_dir": ("log_path",), "wandb": ("track",),
    "model_path": ("load_path",), "checkpoint": ("resume", "load_path"), "gpu": ("threads",),
    "dqn": ("deepq",), "ddqn": ("deepq",), "q_learning": ("deepq",), "reinforce": ("vpg",), "pg": ("vpg",),
    "a3c": ("a2c",), "kfac": ("acktr",), "ppo": ("ppo2", "ppo1"),
}


def unknown(kind: str, name: str, known: Iterable[str], *, list_all: bool = True) -> UserError:
    """A UserError for an unknown name, with the nearest known names (and the whole list where it is short)."""
    known = sorted(known)
    by_lower = {k.lower(): k for k in known}
    dashes = "--" if name.startswith("--") else ""
    called = OTHER_NAMES.get(name.removeprefix("--").lower(), ())
    near = [dashes + k for k in called if dashes + k in known] or [
        by_lower[k] for k in difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.6)]
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    if list_all and not near:
        hint = f"; known: {', '.join(known)}" if known else "; none is known"
    return UserError(f"unknown {kind} {name!r}{hint}")
