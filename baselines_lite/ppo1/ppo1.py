"""PPO with a clipped or a KL-penalised objective (Schulman et al. 2017, 1707.06347).

    for each update:
        collect nsteps steps of every environment with pi_old
        advs, returns = GAE(rewards, values)
        for noptepochs epochs, for each minibatch:
            theta <- one Adam step on  L - ent_coef H + vf_coef (V - R)^2,  its gradient averaged over ranks
                         L = -mean min(r A, clip(r) A)   or   -mean(r A) + beta KL(pi_old || pi)
        kl_adaptive: beta doubles where the KL came out above 1.5 target_kl, halves where it is below target_kl / 1.5
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from baselines_lite.common.envs.vec_env import EnvLike
from baselines_lite.common.experiment.experiment import Experiment
from baselines_lite.common.optim import losses
from baselines_lite.common.optim.losses import Batch
from baselines_lite.common.optim.minibatch import Minibatches, shuffled, training_data
from baselines_lite.common.optim.mpi_adam import MpiAdam
from baselines_lite.common.policies.actor_critic import ActorCritic
from baselines_lite.common.sampling.returns import explained_variance, gae, standardize
from baselines_lite.common.sampling.rollout import Rollout
from baselines_lite.common.system.mpi import Comm
from baselines_lite.common.system.seeding import stream
from baselines_lite.common.system.state import Stateful

from .config import PRESETS, Config

BETA_RANGE = 1024.0

STATS = ("policy_loss", "value_loss", "entropy", "approxkl", "clipfrac", "kl")


def learn(env: EnvLike, total_timesteps: float | None = None, **options: Any) -> ActorCritic:
    """Trains a policy in `env` for `total_timesteps` environment steps over all environments and ranks.

    env: a Gymnasium id, `module:Id`, an Env, a factory of Envs, or a VectorEnv. total_timesteps: by default a million.
    Options by keyword: those of `experiment.config.RunOptions` (seed, log_path, save_path, ...), of `Config`, and of
    the network. Raises UserError for options that cannot be meant and spaces that are not supported.
    """
    with Experiment(__package__, Config, PRESETS, env, total_timesteps, options) as exp:
        cfg, run, comm, policy = exp.config, exp.run, exp.comm, exp.policy
        optimizer = MpiAdam(policy.trainable_variables, comm, epsilon=cfg.adam_epsilon,
                            max_grad_norm=cfg.max_grad_norm)
        update = Update(policy, optimizer, cfg, comm, stream(run.seed, "shuffle", exp.noise_rank))
        collector = exp.collector()
        exp.keep(update=update)
        while not exp.finished:
            rollout = collector.collect()
            advs, returns = gae(rollout, cfg.gamma, cfg.lam)
            stats = update(rollout, standardize(advs, comm), returns, exp.remaining)
            exp.log(rollout, {"explained_variance": partial(explained_variance, rollout.values, returns), **stats})
        return policy


def loss_and_stats(policy: ActorCritic, cfg: Config, batch: Batch, cliprange: tf.Tensor, beta: tf.Tensor
                   ) -> tuple[tf.Tensor, tf.Tensor]:
    """The minibatch loss and the figures STATS."""
    pd, vpred = policy.evaluate(batch["obs"], batch.get("states"), batch.get("firsts"))
    logratio = pd.logp(batch["actions"]) - batch["logp"]
    ratio = tf.exp(logratio)
    kl = tf.constant(0.0, ratio.dtype)
    if cfg.objective == "clip":
        policy_loss = tf.reduce_mean(losses.clipped_surrogate(ratio, batch["advs"], cliprange))
    else:
        kl = tf.reduce_mean(policy.pdtype.pd(batch["old_head"], batch.get("old_logstd")).kl(pd))
        policy_loss = tf.reduce_mean(losses.surrogate(ratio, batch["advs"])) + beta * kl
    value_loss = tf.reduce_mean(2 * losses.value_loss(vpred, batch["returns"]))  # without the half, as the original
    entropy = tf.reduce_mean(pd.entropy())
    loss = policy_loss - cfg.ent_coef * entropy + cfg.vf_coef * value_loss
    stats = [policy_loss, value_loss, entropy, losses.approx_kl(logratio), losses.clip_fraction(ratio, cliprange), kl]
    return loss, tf.stack(stats)


def adapted(beta: float, kl: float, cfg: Config) -> float:
    """The KL's next weight: halved below target / 1.5, doubled above 1.5 target (PPO, section 4).

    It stays within a factor of BETA_RANGE of `kl_coef`: no weight makes up for a learning rate that is too high.
    """
    if kl < cfg.target_kl / 1.5:
        return max(beta / 2, cfg.kl_coef / BETA_RANGE)
    return min(beta * 2, cfg.kl_coef * BETA_RANGE) if kl > cfg.target_kl * 1.5 else beta


class Update(Stateful):
    """All epochs and minibatches of one update, and the weight of the KL."""

    STATE = ("minibatches", "rng", "beta")

    def __init__(self, policy: ActorCritic, optimizer: MpiAdam, cfg: Config, comm: Comm,
                 rng: np.random.Generator) -> None:
        self.policy, self.cfg, self.comm, self.rng, self.beta = policy, cfg, comm, rng, cfg.kl_coef
        self.length = cfg.sequence_length() if policy.recurrent else 1
        self.minibatches = Minibatches(
            policy, optimizer, lambda batch, rates: loss_and_stats(policy, cfg, batch, rates[0], rates[1]), STATS)

    def __call__(self, rollout: Rollout, advs: np.ndarray, returns: np.ndarray, remaining: float) -> dict[str, float]:
        """Steps the parameters on a rollout; returns the mean of STATS over the minibatches, and the rates used.

        For a KL objective "kl" is that between the policies before and after the update.
        """
        cfg, penalised = self.cfg, self.cfg.objective != "clip"
        data = training_data(self.policy, rollout, self.length, advs=advs, returns=returns,
                             logp=self.policy.logp(rollout.heads, rollout.actions))
        if penalised:
            data |= self.policy.distribution(data)
        indices = shuffled(self.rng, advs.size // self.length, cfg.noptepochs, cfg.nminibatches)
        rates = {"lr": cfg.lr(remaining), "cliprange": cfg.cliprange(remaining), "kl_coef": self.beta}
        stats = self.minibatches(data, indices, rates["lr"], [rates["cliprange"], self.beta])
        if penalised:
            stats["kl"] = float(self.comm.mean(np.array([self.policy.kl_since(data)]))[0])
            if cfg.objective == "kl_adaptive":
                self.beta = adapted(self.beta, stats["kl"], cfg)
        else:
            del stats["kl"], rates["kl_coef"]
        return stats | rates
