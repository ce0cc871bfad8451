"""Soft actor-critic (Haarnoja et al. 2018, 1812.05905, algorithm 1; its equations in brackets).

    for each round:
        act by pi for nsteps steps; store (s, a, r, s', terminated) in the replay buffer
        train_steps times: draw a minibatch, b from pi(.|s) and b' from pi(.|s')
            y = r + gamma (1 - terminated) (min_i Q'_i(s', b') - alpha log pi(b'|s'))            (2, 3)
            theta <- one Adam step on  mean sum_i (Q_i(s, a) - y)^2 / 2  for Q1 and Q2,          (5)
                     on  mean(alpha log pi(b|s) - min_i Q_i(s, b))  for pi,                      (7)
                     and on  -mean(alpha (log pi(b|s) + target entropy))  for alpha,             (18)
                     its gradient averaged over ranks
            theta' <- theta' + tau (theta - theta')  for Q'1 and Q'2
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from baselines_lite.common.envs.vec_env import EnvLike
from baselines_lite.common.experiment.experiment import Experiment
from baselines_lite.common.optim import losses
from baselines_lite.common.optim.gradient_step import GradientStep
from baselines_lite.common.optim.mpi_adam import MpiAdam
from baselines_lite.common.optim.mpi_optimizer import Gradient
from baselines_lite.common.sampling.replay_buffer import ReplayBuffer, Transitions
from baselines_lite.common.sampling.replay_collector import Explore, frame_of
from baselines_lite.common.system.compiled import Compiled
from baselines_lite.common.system.seeding import stream
from baselines_lite.common.system.state import Stateful

from .config import PRESETS, Config
from .policy import SoftActorCritic

STATS = ("explained_variance", "policy_loss", "value_loss", "entropy", "mean_q", "alpha", "grad_norm")


def learn(env: EnvLike, total_timesteps: float | None = None, **options: Any) -> SoftActorCritic:
    """Trains a policy in `env` for `total_timesteps` environment steps over all environments and ranks."""
    with Experiment(__package__, Config, PRESETS, env, total_timesteps, options, make_policy=soft_actor_critic,
                    make_buffer=replay_buffer) as exp:
        cfg, policy = exp.config, exp.policy
        collector, update = exp.replay_collector(), Update(exp)
        noise = stream(exp.run.seed, "noise", exp.comm.rank)
        exp.keep(update=update, noise=noise)
        while not exp.finished:
            collector.collect(cfg.nsteps, exploring(policy, noise))
            lr, found = cfg.lr(exp.remaining), [np.full(len(STATS), np.nan)]
            if exp.total_timesteps + exp.batch > cfg.learning_starts:
                found = [update(lr) for _ in range(cfg.train_steps)]
            exp.log(collector.drain(), dict(zip(STATS, np.mean(found, axis=0).tolist(), strict=True), lr=lr))
        return policy


def soft_actor_critic(exp: Experiment, network_options: dict[str, Any]) -> SoftActorCritic:
    """The policy that an experiment's Config describes."""
    venv = exp.venv
    return SoftActorCritic(venv.single_observation_space, venv.single_action_space, network=exp.config.network,
                           network_options=network_options, seed=exp.run.seed, compute=exp.run.dtype)


def replay_buffer(exp: Experiment) -> ReplayBuffer:
    """The replay buffer of one rank. Raises UserError where it does not fit into memory."""
    action = np.zeros(exp.policy.pdtype.action_shape, np.float32)
    return ReplayBuffer(exp.config.buffer_size, exp.config.num_env, frame_of(exp.policy.encoder, 1), action,
                        ranks=exp.comm.local_size)


def exploring(policy: SoftActorCritic, rng: np.random.Generator) -> Explore:
    """Draws from pi with its present weights, as a collector asks for them."""
    act = policy.actor()
    return lambda features, firsts: act(features, policy.noise(rng, firsts.shape)).actions


class Update(Stateful):
    """Gradient steps on minibatches of the replay buffer, and the target networks Q'."""

    STATE = ("optimizer", "target", "rng")

    def __init__(self, exp: Experiment) -> None:
        self.cfg, self.buffer, self.policy = exp.config, exp.buffer, exp.policy
        pi, q, alpha = self.parts = self.policy.pi_variables, self.policy.q_variables, [self.policy.log_alpha.variable]
        self.optimizer = MpiAdam([*pi, *q, *alpha], exp.comm)
        self.target, self.rng = self.policy.copy(), stream(exp.run.seed, "replay", exp.comm.rank)
        given = self.cfg.target_entropy
        self.target_entropy = -self.policy.pdtype.head_size if given is None else given
        self._step = GradientStep(self.optimizer, self.gradient, self.policy.prefers_xla)
        self._follow = Compiled(self.follow, xla=False)

    def __call__(self, lr: float) -> np.ndarray:
        """One step on a minibatch; returns its STATS."""
        batch = self.buffer[self.buffer.sample(self.rng, self.cfg.batch_size)]
        noise = self.policy.noise(self.rng, (2, self.cfg.batch_size))
        figures, = self._step(lr, Transitions(*map(tf.constant, batch)), tf.constant(noise))
        self._follow()
        return figures.numpy()

    def targets(self, batch: Transitions, noise: tf.Tensor) -> tf.Tensor:
        """y [B] (2), by V(s') = min_i Q'_i(s', b') - alpha log pi(b'|s') (3) of one draw b', noise [B, d] (8)."""
        actions, logp = self.policy.draw(batch.next_obs, noise)
        values = tf.reduce_min(self.target.q(batch.next_obs, actions), axis=0) - self.policy.alpha * logp
        return losses.td_target(batch.rewards, batch.terminated, values, self.cfg.gamma)

    def gradient(self, batch: Transitions, noise: tf.Tensor) -> tuple[Gradient, tf.Tensor]:
        """(gradient, STATS but for its norm) of a minibatch; noise [2, B, d]. Each part descends its own loss alone."""
        policy, y = self.policy, self.targets(batch, noise[1])
        with tf.GradientTape(persistent=True) as tape:
            q, alpha = policy.q(batch.obs, batch.actions), policy.alpha
            actions, logp = policy.draw(batch.obs, noise[0])
            q_loss = tf.reduce_mean(tf.reduce_sum(losses.value_loss(q, y), axis=0))  # (5)
            pi_loss = tf.reduce_mean(alpha * logp - tf.reduce_min(policy.q(batch.obs, actions), axis=0))  # (7)
            alpha_loss = -tf.reduce_mean(alpha * (logp + self.target_entropy))  # (18)
        pairs = zip((pi_loss, q_loss, alpha_loss), self.parts, strict=True)
        return [g for loss, variables in pairs for g in tape.gradient(loss, variables)], tf.stack(
            [losses.explained_variance(q[0], y), pi_loss, q_loss, -tf.reduce_mean(logp), tf.reduce_mean(q), alpha])

    def follow(self) -> None:
        """The target networks' step towards Q1 and Q2."""
        for old, new in zip(self.target.q_variables, self.policy.q_variables, strict=True):
            old.assign_add(self.cfg.tau * (new - old))
