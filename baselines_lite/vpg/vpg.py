"""Vanilla policy gradient with generalised advantages (Sutton et al. 2000; Schulman et al. 2016, 1506.02438).

    for each update:
        collect nsteps steps of every environment with pi
        advs, returns = GAE(rewards, values)
        theta <- one Adam step on  -mean(log pi(a|s) A) - ent_coef H,  its gradient averaged over ranks
        fit V to the returns by minibatch Adam
"""

from __future__ import annotations

from functools import partial
from typing import Any

import tensorflow as tf

from baselines_lite.common.envs.vec_env import EnvLike
from baselines_lite.common.experiment.experiment import Experiment
from baselines_lite.common.optim import losses
from baselines_lite.common.optim.losses import Batch
from baselines_lite.common.optim.minibatch import Minibatches, shuffled, training_data
from baselines_lite.common.optim.mpi_adam import MpiAdam
from baselines_lite.common.policies.actor_critic import ActorCritic
from baselines_lite.common.sampling.returns import explained_variance, gae, standardize
from baselines_lite.common.system.seeding import stream

from .config import PRESETS, Config


def learn(env: EnvLike, total_timesteps: float | None = None, **options: Any) -> ActorCritic:
    """Trains a policy in `env` for `total_timesteps` environment steps over all environments and ranks.

    env: a Gymnasium id, `module:Id`, an Env, a factory of Envs, or a VectorEnv. total_timesteps: by default a million.
    Options by keyword: those of `experiment.config.RunOptions` (seed, log_path, save_path, ...), of `Config`, and of
    the network. Raises UserError for options that cannot be meant and spaces that are not supported.
    """
    with Experiment(__package__, Config, PRESETS, env, total_timesteps, options) as exp:
        cfg, run, comm, policy = exp.config, exp.run, exp.comm, exp.policy
        policy_step = Minibatches(policy, MpiAdam(policy.pi_variables, comm),
                                  lambda batch, _: policy_loss(policy, cfg, batch), ("policy_loss", "entropy"))
        value_steps = Minibatches(policy, MpiAdam(policy.vf_variables, comm),
                                  lambda batch, _: losses.value_fit(policy, batch), ("value_loss",))
        shuffle = stream(run.seed, "shuffle", exp.noise_rank)
        collector = exp.collector()
        length = cfg.nsteps if policy.recurrent else 1
        count = cfg.nbatch // length
        exp.keep(policy_step=policy_step, value_steps=value_steps, shuffle=shuffle)
        while not exp.finished:
            rollout = collector.collect()
            advs, returns = gae(rollout, cfg.gamma, cfg.lam)
            data = training_data(policy, rollout, length, advs=standardize(advs, comm), returns=returns)
            rates = {"lr": cfg.lr(exp.remaining), "vf_lr": cfg.vf_lr(exp.remaining)}
            stats = policy_step(data, None, rates["lr"])
            minibatches = shuffled(shuffle, count, cfg.vf_iters, min(cfg.vf_minibatches, count))
            stats |= value_steps(data, minibatches, rates["vf_lr"]) | rates
            exp.log(rollout, {"explained_variance": partial(explained_variance, rollout.values, returns), **stats})
        return policy


def policy_loss(policy: ActorCritic, cfg: Config, batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
    """-mean(log pi(a|s) A) - ent_coef H, whose gradient is minus the policy gradient; and its figures."""
    pd, _ = policy.evaluate(batch["obs"], batch.get("states"), batch.get("firsts"))
    loss = tf.reduce_mean(losses.policy_gradient_loss(pd.logp(batch["actions"]), batch["advs"]))
    entropy = tf.reduce_mean(pd.entropy())
    return loss - cfg.ent_coef * entropy, tf.stack([loss, entropy])
