"""Deep Q-learning (Mnih et al. 2015, Nature 518), with double targets, dueling streams and prioritised replay.

    for each step:
        act epsilon-greedily by Q; store (s, a, r, s', terminated) in the replay buffer
        every train_freq steps: draw a minibatch;  y = r + gamma (1 - terminated) Q'(s', argmax_a Q(s', a))
            theta <- one Adam step on  mean w Huber(Q(s, a) - y),  its gradient averaged over ranks
        every target_network_update_freq steps: Q' <- Q
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from baselines_lite.common.envs.vec_env import EnvLike
from baselines_lite.common.experiment.experiment import Experiment
from baselines_lite.common.optim import losses
from baselines_lite.common.optim.gradient_step import GradientStep
from baselines_lite.common.optim.mpi_adam import MpiAdam
from baselines_lite.common.optim.mpi_optimizer import Gradient
from baselines_lite.common.policies.parameter_noise import ParameterNoise
from baselines_lite.common.policies.policy import Policy
from baselines_lite.common.policies.q_policy import QPolicy
from baselines_lite.common.sampling.replay_buffer import PrioritizedReplayBuffer, ReplayBuffer, Transitions
from baselines_lite.common.sampling.replay_collector import Explore, frame_of
from baselines_lite.common.system.seeding import stream
from baselines_lite.common.system.state import Stateful

from .config import PRESETS, Config

FIGURES = ("explained_variance", "value_loss", "mean_q")
STATS = (*FIGURES, "grad_norm")


def learn(env: EnvLike, total_timesteps: float | None = None, **options: Any) -> Policy:
    """Trains a policy in `env` for `total_timesteps` environment steps over all environments and ranks.

    env: a Gymnasium id, `module:Id`, an Env, a factory of Envs, or a VectorEnv. total_timesteps: by default a million.
    Options by keyword: those of `experiment.config.RunOptions` (seed, log_path, save_path, ...), of `Config`, and of
    the network. Raises UserError for options that cannot be meant, spaces that are not supported, and a replay buffer
    that memory cannot hold.
    """
    with Experiment(__package__, Config, PRESETS, env, total_timesteps, options, make_policy=q_policy,
                    make_buffer=replay_buffer) as exp:
        cfg, run, comm, policy, buffer = exp.config, exp.run, exp.comm, exp.policy, exp.buffer
        collector = exp.replay_collector()
        update = Update(policy, MpiAdam(policy.trainable_variables, comm, epsilon=cfg.adam_epsilon,
                                        max_grad_norm=cfg.max_grad_norm), cfg)
        explorer = (NoisyExplorer if cfg.param_noise else Explorer)(exp)
        rng, steps = stream(run.seed, "replay", comm.rank), cfg.train_freq * cfg.num_env * comm.size
        done = exp.total_timesteps  # environment steps over all ranks
        exp.keep(update=update, explorer=explorer, replay=rng)
        while not exp.finished:
            found, rates = [], {"lr": cfg.lr(exp.remaining)}
            for _ in range(cfg.nsteps // cfg.train_freq):
                collector.collect(cfg.train_freq, explorer.actor(exploration(cfg, done / exp.horizon)))
                done += steps
                if done > cfg.learning_starts:
                    found.append(update(buffer, rng, rates["lr"], 1.0 - done / exp.horizon))
                    explorer.adapt(buffer)
                if done // cfg.target_network_update_freq > (done - steps) // cfg.target_network_update_freq:
                    update.copy_to_target()
            stats = figures(found) | explorer.figures | {"gradient_steps": float(len(found))} | rates
            exp.log(collector.drain(), stats)
        return policy


def q_policy(exp: Experiment, network_options: dict[str, Any]) -> QPolicy:
    """The policy that an experiment's Config describes."""
    cfg, venv = exp.config, exp.venv
    return QPolicy(venv.single_observation_space, venv.single_action_space, network=cfg.network,
                   network_options=network_options, hiddens=cfg.hiddens, dueling=cfg.dueling,
                   epsilon=cfg.exploration_final_eps, seed=exp.run.seed, compute=exp.run.dtype)


def replay_buffer(exp: Experiment) -> ReplayBuffer:
    """The replay buffer of one rank. Raises UserError where it does not fit into memory."""
    cfg = exp.config
    options = dict(stack=exp.frame_stack, ranks=exp.comm.local_size)
    place = (cfg.buffer_size, cfg.num_env, frame_of(exp.policy.encoder, exp.frame_stack), np.zeros((), np.int64))
    if not cfg.prioritized_replay:
        return ReplayBuffer(*place, **options)
    return PrioritizedReplayBuffer(*place, **options, alpha=cfg.prioritized_replay_alpha,
                                   epsilon=cfg.prioritized_replay_eps)


def exploration(cfg: Config, progress: float) -> float:
    """Epsilon after a share `progress` of the budget: linear, then constant."""
    share = min(progress / cfg.exploration_fraction, 1.0)
    return cfg.exploration_initial_eps + share * (cfg.exploration_final_eps - cfg.exploration_initial_eps)


class Explorer(Stateful):
    """Epsilon-greedy actions."""

    STATE = ("_noise",)

    def __init__(self, exp: Experiment) -> None:
        self.policy, self._noise = exp.policy, stream(exp.run.seed, "noise", exp.comm.rank)

    def actor(self, epsilon: float) -> Explore:
        """A function from features [N, ...] to actions [N]."""
        self._epsilon, policy, q = epsilon, self.policy, self.policy.q_function()
        return lambda features, firsts: policy.choose(q, features, policy.noise(self._noise, (len(features),)), epsilon)

    def adapt(self, buffer: ReplayBuffer) -> None:
        """Follows the policy after a gradient step, by what is in the buffer."""

    @property
    def figures(self) -> dict[str, float]:
        """What to log."""
        K, share = self.policy.num_actions, self._epsilon / self.policy.num_actions
        entropy = -sum(p * np.log(p) for p in [1 - self._epsilon + share] + [share] * (K - 1) if p > 0)
        return {"entropy": float(entropy), "epsilon": self._epsilon}


class NoisyExplorer(Explorer):
    """Greedy actions of a policy with noise on its parameters, one draw for all environments.

    It is drawn anew where an episode begins. Its strength is adapted after each gradient step, so that the softmax
    distributions of the two policies differ as much as the greedy policy and the epsilon-greedy one would,
    KL = -log(1 - epsilon + epsilon / K) nats (Plappert et al. 2018, appendix C.1), action values in units of raw
    rewards.
    """

    STATE = ("_rng", "_noisy", "noise")

    def __init__(self, exp: Experiment) -> None:
        super().__init__(exp)
        self._rng, self._batch_size = stream(exp.run.seed, "parameter noise", exp.comm.rank), exp.config.batch_size
        self._unit = exp.run.reward_scale
        self._noisy, probe = exp.policy.copy(), exp.policy.copy()
        self.noise = ParameterNoise(exp.policy, probe, self._rng, std=0.01)

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        self._act = self._noisy.q_function()

    def actor(self, epsilon: float) -> Explore:
        self._epsilon = epsilon

        def act(features: np.ndarray, firsts: np.ndarray) -> np.ndarray:
            if firsts.any():
                self.noise.perturb(self._noisy)
                self._act = self._noisy.q_function()
            return self._act(features).argmax(axis=-1)

        return act

    def adapt(self, buffer: ReplayBuffer) -> None:
        obs = buffer[buffer.sample(self._rng, self._batch_size)].obs
        q = self.policy.q_function()(obs) / self._unit
        self.noise.adapt(lambda: mean_kl(q, self.noise.perturbed.q_function()(obs) / self._unit),
                         -np.log(1 - self._epsilon + self._epsilon / self.policy.num_actions))

    @property
    def figures(self) -> dict[str, float]:
        return {"entropy": float("nan"), "param_noise_std": self.noise.std}


def mean_kl(q: np.ndarray, other: np.ndarray) -> float:
    """Mean KL in nats between the softmax distributions of two arrays [N, K] of action values."""
    logp, log_other = (x - np.logaddexp.reduce(x, axis=-1, keepdims=True) for x in (q, other))
    return float((np.exp(logp) * (logp - log_other)).sum(axis=-1).mean())


def figures(found: list[np.ndarray]) -> dict[str, float | None]:
    """What to log of gradient steps with STATS each. There is no loss of a policy."""
    means = np.mean(found, axis=0) if found else np.full(len(STATS), np.nan)
    return dict.fromkeys(("explained_variance", "policy_loss")) | dict(zip(STATS, means.tolist(), strict=True))


class Update(Stateful):
    """Gradient steps on minibatches of a replay buffer, and the target network Q'."""

    STATE = ("optimizer", "target")

    def __init__(self, policy: QPolicy, optimizer: MpiAdam, cfg: Config) -> None:
        self.policy, self.optimizer, self.cfg, self.target = policy, optimizer, cfg, policy.copy()
        self._step = GradientStep(optimizer, self.gradient, policy.prefers_xla)

    def copy_to_target(self) -> None:
        """Q' <- Q."""
        for old, new in zip(self.target.trainable_variables, self.policy.trainable_variables, strict=True):
            old.assign(new)

    def __call__(self, buffer: ReplayBuffer, rng: np.random.Generator, lr: float, remaining: float) -> np.ndarray:
        """One step on a minibatch from the buffer, whose priorities it renews; returns its STATS."""
        cfg = self.cfg
        index = buffer.sample(rng, cfg.batch_size)
        weights = np.ones(cfg.batch_size, np.float32)
        if isinstance(buffer, PrioritizedReplayBuffer):
            weights = buffer.weights(index, 1.0 + remaining * (cfg.prioritized_replay_beta0 - 1.0))
        errors, stats = self.step(buffer[index], weights, lr)
        if isinstance(buffer, PrioritizedReplayBuffer):
            buffer.set_errors(index, errors)
        return stats

    def step(self, batch: Transitions, weights: np.ndarray, lr: float) -> tuple[np.ndarray, np.ndarray]:
        """One step on a minibatch with importance weights [B]; returns the errors Q - y [B] and STATS."""
        stats, errors = self._step(lr, Transitions(*map(tf.constant, batch)), tf.constant(weights, self.policy.dtype))
        return errors.numpy(), stats.numpy()

    def gradient(self, batch: Transitions, weights: tf.Tensor) -> tuple[Gradient, tf.Tensor, tf.Tensor]:
        """(gradient, FIGURES, errors Q - y [B]) of a minibatch."""
        q_next = self.target.q(batch.next_obs)
        with tf.GradientTape() as tape:
            loss, errors, stats = loss_and_stats(self.policy, self.cfg, batch, weights, q_next)
        return self.optimizer.gradient(tape, loss), stats, errors


def loss_and_stats(policy: QPolicy, cfg: Config, batch: Transitions, weights: tf.Tensor, q_next: tf.Tensor
                   ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The weighted loss, the errors Q(s, a) - y [B] and FIGURES; q_next: the target network's Q(s', .)."""
    chooser = policy.q(batch.next_obs) if cfg.double_q else q_next
    y = tf.stop_gradient(td_targets(batch.rewards, batch.terminated, q_next, chooser, cfg.gamma))
    q = losses.pick(policy.q(batch.obs), batch.actions)
    errors = q - y
    loss = tf.reduce_mean(weights * losses.huber(errors))
    return loss, errors, tf.stack([losses.explained_variance(q, y), loss, tf.reduce_mean(q)])


def td_targets(rewards: tf.Tensor, terminated: tf.Tensor, q_next: tf.Tensor, chooser: tf.Tensor, gamma: float
               ) -> tf.Tensor:
    """r + gamma (1 - terminated) Q'(s', argmax_a chooser(s', a)) [B], for Q' and chooser [B, K].

    chooser = Q: double Q-learning (van Hasselt et al. 2016, 1509.06461, eq. 4); chooser = Q': the plain maximum.
    """
    return losses.td_target(rewards, terminated, losses.pick(q_next, tf.argmax(chooser, axis=-1)), gamma)
