"""Synchronous advantage actor-critic: A3C (Mnih et al. 2016, 1602.01783) without the asynchrony.

    for each update:
        collect nsteps steps of every environment with pi
        returns = r_t + gamma r_{t+1} + ... + gamma^n V(s_{t+n});  advs = returns - V
        theta <- one RMSProp step on  -mean(log pi(a|s) A) - ent_coef H + vf_coef mean (V - R)^2,
                 its gradient averaged over ranks
"""

from __future__ import annotations

from functools import partial
from typing import Any

from baselines_lite.common.envs.vec_env import EnvLike
from baselines_lite.common.experiment.experiment import Experiment
from baselines_lite.common.optim import losses
from baselines_lite.common.optim.minibatch import Minibatches, training_data
from baselines_lite.common.optim.mpi_rmsprop import MpiRmsProp
from baselines_lite.common.policies.actor_critic import ActorCritic
from baselines_lite.common.sampling.returns import explained_variance, gae

from .config import PRESETS, Config

STATS = ("policy_loss", "value_loss", "entropy")


def learn(env: EnvLike, total_timesteps: float | None = None, **options: Any) -> ActorCritic:
    """Trains a policy in `env` for `total_timesteps` environment steps over all environments and ranks.

    env: a Gymnasium id, `module:Id`, an Env, a factory of Envs, or a VectorEnv. total_timesteps: by default a million.
    Options by keyword: those of `experiment.config.RunOptions` (seed, log_path, save_path, ...), of `Config`, and of
    the network. Raises UserError for options that cannot be meant and spaces that are not supported.
    """
    with Experiment(__package__, Config, PRESETS, env, total_timesteps, options) as exp:
        cfg, comm, policy = exp.config, exp.comm, exp.policy
        optimizer = MpiRmsProp(policy.trainable_variables, comm, decay=cfg.rms_decay, epsilon=cfg.rms_epsilon,
                               max_grad_norm=cfg.max_grad_norm)
        step = Minibatches(policy, optimizer, lambda batch, _: losses.actor_critic_loss(
            policy, batch, cfg.ent_coef, cfg.vf_coef), STATS)
        collector = exp.collector()
        length = cfg.nsteps if policy.recurrent else 1
        exp.keep(step=step)
        while not exp.finished:
            rollout = collector.collect()
            advs, returns = gae(rollout, cfg.gamma, cfg.lam)
            data = training_data(policy, rollout, length, advs=advs, returns=returns)
            rates = {"lr": cfg.lr(exp.remaining)}
            stats = step(data, None, rates["lr"]) | rates
            exp.log(rollout, {"explained_variance": partial(explained_variance, rollout.values, returns), **stats})
        return policy
