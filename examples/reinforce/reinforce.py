"""REINFORCE (Williams 1992) without a baseline.

    for each update:
        collect nsteps steps of every environment with pi
        G_t = r_t + gamma r_{t+1} + ... to the end of the episode, or of what was collected
        theta <- one Adam step on  -mean(log pi(a|s) G),  G standardised, its gradient averaged over ranks
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from baselines_lite.common.envs.vec_env import EnvLike
from baselines_lite.common.experiment.experiment import Experiment
from baselines_lite.common.optim import losses
from baselines_lite.common.optim.losses import Batch
from baselines_lite.common.optim.minibatch import Minibatches, training_data
from baselines_lite.common.optim.mpi_adam import MpiAdam
from baselines_lite.common.policies.actor_critic import ActorCritic
from baselines_lite.common.sampling.returns import generalized_advantages, standardize

from .config import PRESETS, Config


def learn(env: EnvLike, total_timesteps: float | None = None, **options: Any) -> ActorCritic:
    """Trains a policy in `env` for `total_timesteps` environment steps over all environments and ranks."""
    with Experiment(__package__, Config, PRESETS, env, total_timesteps, options) as exp:
        cfg, policy = exp.config, exp.policy
        step = Minibatches(policy, MpiAdam(policy.pi_variables, exp.comm),
                           lambda batch, _: policy_loss(policy, batch), ("policy_loss", "entropy"))
        collector = exp.collector()
        length = cfg.nsteps if policy.recurrent else 1
        exp.keep(step=step)
        while not exp.finished:
            rollout = collector.collect()
            nothing = np.zeros_like(rollout.values)  # V = 0 and lambda = 1 make of GAE the sum of what follows
            returns, _ = generalized_advantages(rollout.rewards, nothing, nothing, rollout.terminated, rollout.dones,
                                                cfg.gamma, 1.0)
            data = training_data(policy, rollout, length, returns=standardize(returns, exp.comm))
            exp.log(rollout, step(data, None, cfg.lr(exp.remaining)))
        return policy


def policy_loss(policy: ActorCritic, batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
    """-mean(log pi(a|s) G), and the figures to log."""
    pd, _ = policy.evaluate(batch["obs"], batch.get("states"), batch.get("firsts"))
    loss = tf.reduce_mean(losses.policy_gradient_loss(pd.logp(batch["actions"]), batch["returns"]))
    return loss, tf.stack([loss, tf.reduce_mean(pd.entropy())])
