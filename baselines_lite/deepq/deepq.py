"""Deep Q-learning (Mnih et al. 2015, Nature 518), with double targets, dueling streams and prioritised replay.

    for each step:
        act epsilon-greedily by Q; store (s, a, r, s', terminated) in the replay buffer
        every train_freq steps: draw a minibatch;  y = r + gamma (1 - terminated) Q'(s', argmax_a Q(s', a))
            theta <- one Adam step on  mean w Huber(Q(s, a) - y),  averaged over ranks
        every target_network_update_freq steps: Q' <- Q
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from baselines_lite.common import losses
from baselines_lite.common.experiment import Experiment
from baselines_lite.common.flat import get_flat, set_flat
from baselines_lite.common.mpi_adam import MpiAdam
from baselines_lite.common.mpi_optimizer import Vectors
from baselines_lite.common.parameter_noise import ParameterNoise
from baselines_lite.common.policy import Policy
from baselines_lite.common.q_policy import QPolicy
from baselines_lite.common.replay_buffer import PrioritizedReplayBuffer, ReplayBuffer, Transitions
from baselines_lite.common.replay_collector import ReplayCollector, frame_of
from baselines_lite.common.seeding import stream
from baselines_lite.common.vec_env import EnvLike
from baselines_lite.deepq.config import PRESETS, Config

STATS = ("value_loss", "mean_q", "explained_variance")


def learn(env: EnvLike, total_timesteps: float = 1_000_000, **options: Any) -> Policy:
    """Trains a policy in `env` for `total_timesteps` environment steps over all environments and ranks.

    env: a Gymnasium id, `module:Id`, an Env, a factory of Envs, or a VectorEnv. Options by keyword: those of
    `common.config.RunOptions` (seed, log_path, save_path, ...), of `deepq.Config`, and of the network. Raises UserError
    for options that cannot be meant and spaces that are not supported.
    """
    with Experiment("deepq", Config, PRESETS, env, total_timesteps, options, make_policy=q_policy,
                    make_buffer=replay_buffer) as exp:
        cfg, run, comm, policy, buffer = exp.config, exp.run, exp.comm, exp.policy, exp.buffer
        collector = ReplayCollector(exp.venv, policy, buffer, comm, seed=run.seed, shape_rewards=exp.shape_rewards,
                                    cut_is_death=cfg.time_limit == "terminal")
        update = Update(policy, q_policy(exp, policy.network_options), MpiAdam(
            policy.trainable_variables, comm, epsilon=cfg.adam_epsilon, max_grad_norm=cfg.max_grad_norm), cfg)
        explore = (NoisyExplorer if cfg.param_noise else Explorer)(exp)
        rng, steps = stream(run.seed, "replay", comm.rank), cfg.train_freq * cfg.num_env * comm.size
        done = 0  # environment steps over all ranks
        while not exp.finished:
            found = []
            for _ in range(cfg.nsteps // cfg.train_freq):
                epsilon = exploration(cfg, done / run.num_timesteps)
                collector.collect(cfg.train_freq, explore(epsilon))
                if done // cfg.target_network_update_freq != (done + steps) // cfg.target_network_update_freq:
                    update.copy_to_target()
                done += steps
                if done >= cfg.learning_starts:
                    found.append(update(buffer, rng, cfg.lr(exp.remaining), 1.0 - done / run.num_timesteps))
            exp.log(collector.drain(), figures(found, cfg, epsilon, policy.num_actions) | explore.figures)
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
    stack = exp.atari.frame_stack if exp.atari is not None else 1
    options = dict(stack=stack, ranks=exp.comm.local_size)
    place = (cfg.buffer_size, cfg.num_env, frame_of(exp.policy.encoder, stack), np.zeros((), np.int64))
    if not cfg.prioritized_replay:
        return ReplayBuffer(*place, **options)
    return PrioritizedReplayBuffer(*place, **options, alpha=cfg.prioritized_replay_alpha,
                                   epsilon=cfg.prioritized_replay_eps)


def exploration(cfg: Config, progress: float) -> float:
    """Epsilon after a share `progress` of the budget: linear, then constant."""
    share = min(progress / cfg.exploration_fraction, 1.0)
    return cfg.exploration_initial_eps + share * (cfg.exploration_final_eps - cfg.exploration_initial_eps)


class Explorer:
    """Epsilon-greedy actions."""

    def __init__(self, exp: Experiment) -> None:
        self.policy, self._noise = exp.policy, stream(exp.run.seed, "noise", exp.comm.rank)

    def __call__(self, epsilon: float) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        """A function from features [N, ...] to actions [N] with the present weights."""
        policy, q = self.policy, self.policy.q_function()
        return lambda features, firsts: policy.choose(q, features, policy.noise(self._noise, (len(features),)), epsilon)

    @property
    def figures(self) -> dict[str, float]:
        """What to log."""
        return {}


class NoisyExplorer(Explorer):
    """Greedy actions of a policy with noise on its parameters, drawn anew where an episode begins.

    The noise is kept at the strength at which the policies' softmax distributions differ as much as the greedy policy
    and the epsilon-greedy one would: KL = -log(1 - epsilon + epsilon / K) nats (Plappert et al. 2018, appendix C.1).
    """

    def __init__(self, exp: Experiment) -> None:
        super().__init__(exp)
        self.noise = ParameterNoise(exp.policy, q_policy(exp, exp.policy.network_options), self._noise, std=0.01)
        self.noise.perturb()

    @property
    def figures(self) -> dict[str, float]:
        return {"param_noise_std": self.noise.std}

    def __call__(self, epsilon: float) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        wanted = -np.log(1 - epsilon + epsilon / self.policy.num_actions)
        plain, noisy = self.policy.q_function(), self.noise.perturbed.q_function()

        def act(features: np.ndarray, firsts: np.ndarray) -> np.ndarray:
            nonlocal noisy
            if firsts.any():
                self.noise.perturb()
                noisy = self.noise.perturbed.q_function()
            q = noisy(features)
            self.noise.adapt(mean_kl(plain(features), q), wanted)
            return q.argmax(axis=-1)

        return act


def mean_kl(q: np.ndarray, other: np.ndarray) -> float:
    """Mean KL in nats between the softmax distributions of two arrays [N, K] of action values."""
    logp, log_other = (x - np.logaddexp.reduce(x, axis=-1, keepdims=True) for x in (q, other))
    return float((np.exp(logp) * (logp - log_other)).sum(axis=-1).mean())


def figures(found: list[np.ndarray], cfg: Config, epsilon: float, num_actions: int) -> dict[str, float]:
    """What to log of gradient steps with STATS each, and of the epsilon-greedy policy."""
    means = np.mean(found, axis=0) if found else np.full(len(STATS), np.nan)
    value_loss, mean_q, explained = means.tolist()
    share = epsilon / num_actions
    entropy = -sum(p * np.log(p) for p in [1 - epsilon + share] + [share] * (num_actions - 1) if p > 0)
    return {"explained_variance": explained, "policy_loss": float("nan"), "value_loss": value_loss,
            "entropy": float(entropy), "mean_q": mean_q, "epsilon": epsilon, "gradient_steps": float(len(found))}


class Update:
    """Gradient steps on minibatches of a replay buffer, and the target network."""

    def __init__(self, policy: QPolicy, target: QPolicy, optimizer: MpiAdam, cfg: Config) -> None:
        self.policy, self.target, self.optimizer, self.cfg = policy, target, optimizer, cfg
        alone, xla = optimizer.comm.size == 1, policy.prefers_xla
        self._step = tf.function(self._gradient_step, jit_compile=alone and xla)
        self._gradient = tf.function(self._loss_gradient, jit_compile=not alone and xla)
        self._apply = tf.function(optimizer.step, jit_compile=True)
        self.copy_to_target()

    def copy_to_target(self) -> None:
        """Q' <- Q."""
        set_flat(self.target.trainable_variables, get_flat(self.policy.trainable_variables))

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
        """One step on a minibatch with importance weights [B]; returns the errors Q - y [B] and the mean STATS."""
        rates = tf.constant(np.float32(lr), self.policy.dtype)
        errors, stats = self._step(*map(tf.constant, batch), tf.constant(weights, self.policy.dtype), rates)
        return errors.numpy(), stats.numpy()

    def _gradient_step(self, *inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        state = self.optimizer.state()
        g, stats, errors = self._gradient(state.theta, *inputs[:-1])
        g, stats = self.optimizer.average(g, stats)
        self.optimizer.assign(self._apply(state, g, inputs[-1]))
        return errors, stats

    def _loss_gradient(self, theta: Vectors, *batch: tf.Tensor) -> tuple[Vectors, tf.Tensor, tf.Tensor]:
        """(gradient, STATS, errors [B]) at the parameters theta."""
        with tf.GradientTape() as tape:
            tape.watch(theta)
            with self.optimizer.parts.at(self.policy, theta):
                loss, errors, stats = loss_and_stats(self.policy, self.target, self.cfg, *batch)
        return tape.gradient(loss, theta), stats, errors


def loss_and_stats(policy: QPolicy, target: QPolicy, cfg: Config, obs: tf.Tensor, actions: tf.Tensor,
                   rewards: tf.Tensor, next_obs: tf.Tensor, terminated: tf.Tensor, weights: tf.Tensor
                   ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The weighted loss, the errors Q(s, a) - y [B] and the figures STATS of transitions [B, ...]."""
    features, next_features = features_of(policy, obs), features_of(policy, next_obs)
    q_next = target.q(next_features)
    y = td_targets(rewards, terminated, q_next, policy.q(next_features) if cfg.double_q else q_next, cfg.gamma)
    q = losses.pick(policy.q(features), actions)
    errors = q - tf.stop_gradient(y)
    loss = tf.reduce_mean(weights * losses.huber(errors))
    explained = 1 - tf.math.reduce_variance(errors) / tf.maximum(tf.math.reduce_variance(y), 1e-12)
    return loss, errors, tf.stack([loss, tf.reduce_mean(q), explained])


def td_targets(rewards: tf.Tensor, terminated: tf.Tensor, q_next: tf.Tensor, chooser: tf.Tensor, gamma: float
               ) -> tf.Tensor:
    """r + gamma (1 - terminated) Q'(s', argmax_a chooser(s', a)) [B], for Q' and chooser [B, K].

    chooser = Q: double Q-learning (van Hasselt et al. 2016, 1509.06461, eq. 4); chooser = Q': the plain maximum.
    """
    alive = 1.0 - tf.cast(terminated, q_next.dtype)
    return tf.cast(rewards, q_next.dtype) + gamma * alive * losses.pick(q_next, tf.argmax(chooser, axis=-1))


def features_of(policy: QPolicy, obs: tf.Tensor) -> tf.Tensor:
    """Features [B, ...] of observations as a replay buffer holds them: [B, stack, height, width] if stacked."""
    stacked = len(obs.shape) == 4 and obs.shape[1:] != policy.encoder.shape
    return tf.transpose(obs, [0, 2, 3, 1]) if stacked else obs
