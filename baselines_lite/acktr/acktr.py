"""ACKTR (Wu et al. 2017, 1708.05144): the actor-critic loss stepped along the Kronecker-factored natural gradient.

    for each update:
        collect nsteps steps of every environment with pi
        returns = r_t + gamma r_{t+1} + ... + gamma^n V(s_{t+n});  advs = returns - V
        F ~ A (x) G per layer, of log pi(a|s) and log N(V'; V, 1) together
        theta <- theta - lr nu F^-1 gradient of  -mean(log pi(a|s) A) - ent_coef H + vf_coef mean (V - R)^2
                 nu: the step's KL stays in its trust region
"""

from __future__ import annotations

from functools import partial
from typing import Any

import tensorflow as tf

from baselines_lite.common.envs.vec_env import EnvLike
from baselines_lite.common.experiment.experiment import Experiment
from baselines_lite.common.optim import losses
from baselines_lite.common.optim.kfac import Kfac
from baselines_lite.common.optim.losses import Batch
from baselines_lite.common.optim.minibatch import training_data
from baselines_lite.common.policies.actor_critic import ActorCritic
from baselines_lite.common.sampling.returns import explained_variance, gae, standardize
from baselines_lite.common.system.seeding import stream

from .config import PRESETS, Config

STATS = ("policy_loss", "value_loss", "entropy")


def learn(env: EnvLike, total_timesteps: float | None = None, **options: Any) -> ActorCritic:
    """Trains a policy in `env` for `total_timesteps` environment steps over all environments and ranks.

    env: a Gymnasium id, `module:Id`, an Env, a factory of Envs, or a VectorEnv. total_timesteps: by default a million.
    Options by keyword: those of `experiment.config.RunOptions` (seed, log_path, save_path, ...), of `Config`, and of
    the network. Raises UserError for options that cannot be meant, and spaces and networks that are not supported.
    """
    with Experiment(__package__, Config, PRESETS, env, total_timesteps, options) as exp:
        cfg, run, comm, policy = exp.config, exp.run, exp.comm, exp.policy
        kfac = Kfac(policy, comm, lambda batch: losses.actor_critic_loss(policy, batch, cfg.ent_coef, cfg.vf_coef),
                    lambda batch: log_likelihood(policy, cfg, batch), STATS, kfac_clip=cfg.kfac_clip,
                    momentum=cfg.momentum, stats_decay=cfg.stats_decay, damping=cfg.damping,
                    stats_every=cfg.stats_every, inverse_every=cfg.inverse_every, cold_iter=cfg.cold_iter,
                    max_grad_norm=cfg.max_grad_norm, examples=cfg.stats_examples, positions=cfg.stats_positions,
                    asynchronous=cfg.asynchronous, rng=stream(run.seed, "kfac", exp.noise_rank))
        collector = exp.collector()
        exp.keep(kfac=kfac)
        while not exp.finished:
            rollout = collector.collect()
            advs, returns = gae(rollout, cfg.gamma, cfg.lam)
            advs = standardize(advs, comm) if cfg.standardize_advs else advs
            rates = {"lr": cfg.lr(exp.remaining)}
            stats = kfac.update(training_data(policy, rollout, advs=advs, returns=returns), rates["lr"]) | rates
            exp.log(rollout, {"explained_variance": partial(explained_variance, rollout.values, returns), **stats})
        return policy


def log_likelihood(policy: ActorCritic, cfg: Config, batch: Batch) -> tf.Tensor:
    """Sum over examples of log pi(a|s) + log N(V'; V, 1 / vf_fisher_coef), of outputs that the policy drew.

    Actions are those taken, which are draws from the policy. For the value, a draw is V plus or minus one deviation,
    which has the moments of a normal draw that the Fisher matrix needs, and none of its scatter.
    """
    pd, vpred = policy.evaluate(batch["obs"])
    drawn = tf.stop_gradient(vpred) + batch["value_noise"] / tf.sqrt(tf.cast(cfg.vf_fisher_coef, vpred.dtype))
    return tf.reduce_sum(pd.logp(batch["actions"]) - 0.5 * cfg.vf_fisher_coef * tf.square(vpred - drawn))
