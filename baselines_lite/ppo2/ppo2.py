"""PPO with the clipped objective on vectorised environments (Schulman et al. 2017, 1707.06347, algorithm 1).

    for each update:
        collect nsteps steps of every environment with pi_old
        advs, returns = GAE(rewards, values)
        for noptepochs epochs, for each minibatch:
            theta <- one Adam step on  L_clip - ent_coef H + vf_coef L_vf,  its gradient averaged over ranks
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from baselines_lite.common.envs.vec_env import EnvLike
from baselines_lite.common.experiment.experiment import Experiment
from baselines_lite.common.optim import losses
from baselines_lite.common.optim.local_steps import LocalMinibatches
from baselines_lite.common.optim.losses import Batch
from baselines_lite.common.optim.minibatch import Minibatches, shuffled, training_data
from baselines_lite.common.optim.mpi_adam import MpiAdam
from baselines_lite.common.policies.actor_critic import ActorCritic
from baselines_lite.common.sampling.returns import explained_variance, gae, minibatch_moments
from baselines_lite.common.sampling.revalued import revalued
from baselines_lite.common.sampling.rollout import Rollout
from baselines_lite.common.system.mpi import Comm
from baselines_lite.common.system.schedules import Schedule
from baselines_lite.common.system.seeding import stream
from baselines_lite.common.system.state import Stateful

from .config import PRESETS, Config

STATS = ("policy_loss", "value_loss", "entropy", "approxkl", "clipfrac")


def learn(env: EnvLike, total_timesteps: float | None = None, **options: Any) -> ActorCritic:
    """Trains a policy in `env` for `total_timesteps` environment steps over all environments and ranks.

    env: a Gymnasium id, `module:Id`, an Env, a factory of Envs, or a VectorEnv. total_timesteps: by default a million.
    Options by keyword: those of `experiment.config.RunOptions` (seed, log_path, save_path, ...), of `Config`, and of
    the network. Raises UserError for options that cannot be meant and spaces that are not supported.
    """
    with Experiment(__package__, Config, PRESETS, env, total_timesteps, options) as exp:
        cfg, run, comm, policy = exp.config, exp.run, exp.comm, exp.policy
        optimizer = MpiAdam(policy.trainable_variables, Comm() if cfg.sync == "epoch" and comm.size > 1 else comm,
                            epsilon=cfg.adam_epsilon, max_grad_norm=cfg.max_grad_norm)
        update = Update(policy, optimizer, cfg, comm, stream(run.seed, "shuffle", exp.noise_rank))
        collector = exp.collector()
        exp.keep(update=update)
        while not exp.finished:
            rollout = collector.collect()
            advs, returns = gae(rollout, cfg.gamma, cfg.lam)
            stats = update(rollout, advs, returns, exp.remaining)
            exp.log(rollout, {"explained_variance": partial(explained_variance, rollout.values, returns), **stats})
        return policy


def loss_and_stats(policy: ActorCritic, cfg: Config, batch: Batch, cliprange: tf.Tensor, cliprange_vf: tf.Tensor
                   ) -> tuple[tf.Tensor, tf.Tensor]:
    """The minibatch loss and the figures STATS; advantages are standardised by batch["mean"] and batch["std"]."""
    pd, vpred = policy.evaluate(batch["obs"], batch.get("states"), batch.get("firsts"))
    advs = (batch["advs"] - batch["mean"]) / batch["std"]
    logratio = pd.logp(batch["actions"]) - batch["logp"]
    ratio = tf.exp(logratio)
    policy_loss = tf.reduce_mean(losses.clipped_surrogate(ratio, advs, cliprange))
    if cfg.cliprange_vf is None:
        value_loss = tf.reduce_mean(losses.value_loss(vpred, batch["returns"]))
    else:
        value_loss = tf.reduce_mean(losses.clipped_value_loss(vpred, batch["values"], batch["returns"], cliprange_vf))
    entropy = tf.reduce_mean(pd.entropy())
    loss = policy_loss - cfg.ent_coef * entropy + cfg.vf_coef * value_loss
    stats = [policy_loss, value_loss, entropy, losses.approx_kl(logratio), losses.clip_fraction(ratio, cliprange)]
    return loss, tf.stack(stats)


class Update(Stateful):
    """All epochs and minibatches of one update."""

    STATE = ("minibatches", "rng")

    def __init__(self, policy: ActorCritic, optimizer: MpiAdam, cfg: Config, comm: Comm,
                 rng: np.random.Generator) -> None:
        self.policy, self.cfg, self.rng = policy, cfg, rng
        self.moments_comm = comm if cfg.adv_moments == "global" else Comm()
        self.length = cfg.sequence_length() if policy.recurrent else 1
        parts = policy, optimizer, lambda batch, clips: loss_and_stats(policy, cfg, batch, clips[0], clips[1]), STATS
        self.minibatches = (Minibatches(*parts, cfg.target_kl and ("approxkl", 1.5 * cfg.target_kl),
                                        joined=cfg.adv_moments == "global")
                            if optimizer.comm.size == comm.size else  # each rank has an optimizer of its own:
                            LocalMinibatches(*parts, comm=comm, epochs=cfg.epochs_at_once))

    def __call__(self, rollout: Rollout, advs: np.ndarray, returns: np.ndarray, remaining: float) -> dict[str, float]:
        """Steps the parameters on a rollout; returns the mean of STATS over the minibatches, and the rates used."""
        cfg = self.cfg
        rates = {"lr": cfg.lr(remaining), "cliprange": cfg.cliprange(remaining)}
        clips = [rates["cliprange"], (cfg.cliprange_vf or Schedule("0"))(remaining)]
        indices, each, shares = self.shuffle(advs.size // self.length), [], []
        logp = self.policy.logp(rollout.heads, rollout.actions)  # before the policy's own logstd is changed
        for epoch in np.split(indices, cfg.noptepochs // cfg.epochs_at_once):
            if each:  # Andrychowicz et al. 2021, 2006.05990, section 3.5
                rollout = revalued(rollout, self.policy)
                advs, returns = gae(rollout, cfg.gamma, cfg.lam)
            each.append(self.epochs(rollout, logp, advs, returns, epoch, rates["lr"], clips))
            shares.append(self.minibatches.share)
            if self.minibatches.stopped:
                break
        return {name: float(np.average([stats[name] for stats in each], weights=shares)) for name in STATS} | rates

    def epochs(self, rollout: Rollout, logp: np.ndarray, advs: np.ndarray, returns: np.ndarray, indices: np.ndarray,
               lr: float, clips: Sequence[float]) -> dict[str, float]:
        """Steps on the minibatches that `indices` [count, size] picks; returns the mean of STATS over them."""
        data = training_data(self.policy, rollout, self.length, logp=logp, advs=advs, returns=returns,
                             values=rollout.values)
        mean, std = minibatch_moments(data["advs"].numpy(), indices, self.moments_comm)
        return self.minibatches(data, indices, lr, clips, {"mean": mean, "std": std})

    def shuffle(self, count: int) -> np.ndarray:
        """Indices of every minibatch's samples (or sequences): [noptepochs * nminibatches, count / nminibatches]."""
        return shuffled(self.rng, count, self.cfg.noptepochs, self.cfg.nminibatches)
