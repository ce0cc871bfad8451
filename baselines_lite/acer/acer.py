"""ACER, the actor-critic with experience replay (Wang et al. 2017, 1611.01224), for discrete actions.

    for each update:
        collect and store nsteps steps of every environment with mu = pi
        for the new batch, then for Poisson(replay_ratio) batches of stored segments, with f = pi(.|s), rho = f / mu:
            Q_ret = Retrace(r, Q, V = f . Q, rho)
            g = gradient by f of  min(c, rho_a) log f_a (Q_ret - V) + sum_b f_b [1 - c / rho_b]_+ log f_b (Q_b - V)
                                  + ent_coef H(f);  of the factors of log f nothing is differentiated
            z = the vector nearest to g with k . z <= delta,  k = gradient by f of KL(average policy || f)
            theta <- one RMSProp step along mean z df/dtheta - q_coef d/dtheta mean (Q_ret - Q_a)^2 / 2,
                     averaged over ranks
            average policy <- alpha average policy + (1 - alpha) theta
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf

from baselines_lite.common.envs.vec_env import EnvLike
from baselines_lite.common.experiment.experiment import Experiment
from baselines_lite.common.optim import losses
from baselines_lite.common.optim.gradient_step import GradientStep
from baselines_lite.common.optim.losses import Batch
from baselines_lite.common.optim.mpi_optimizer import Gradient
from baselines_lite.common.optim.mpi_rmsprop import MpiRmsProp
from baselines_lite.common.policies.actor_q import ActorQ, expected
from baselines_lite.common.system.compiled import Compiled
from baselines_lite.common.system.seeding import stream
from baselines_lite.common.system.state import Stateful

from .config import PRESETS, Config
from .replay import Replay, Segments, segments_of

FIGURES = ("explained_variance", "policy_loss", "value_loss", "entropy", "rho", "truncated", "kl_average",
           "constrained")
STATS = (*FIGURES, "grad_norm")


def learn(env: EnvLike, total_timesteps: float | None = None, **options: Any) -> ActorQ:
    """Trains a policy in `env` for `total_timesteps` environment steps over all environments and ranks.

    env: a Gymnasium id, `module:Id`, an Env, a factory of Envs, or a VectorEnv. total_timesteps: by default a million.
    Options by keyword: those of `experiment.config.RunOptions` (seed, log_path, save_path, ...), of `Config`, and of
    the network. Raises UserError for options that cannot be meant, spaces that are not supported, and a replay buffer
    that memory cannot hold.
    """
    with Experiment(__package__, Config, PRESETS, env, total_timesteps, options, make_policy=actor_q,
                    make_buffer=replay_buffer) as exp:
        cfg, run, comm, policy, buffer = exp.config, exp.run, exp.comm, exp.policy, exp.buffer
        optimizer = MpiRmsProp(policy.trainable_variables, comm, decay=cfg.rms_decay, epsilon=cfg.rms_epsilon,
                               max_grad_norm=cfg.max_grad_norm)
        update = Update(policy, optimizer, cfg)
        collector = exp.collector(values=False)  # those of stored segments are found anew with each update
        # The number of replays is drawn alike on all ranks, so that their collectives match.
        rng, counts = stream(run.seed, "replay", exp.noise_rank), stream(run.seed, "replay counts")
        exp.keep(update=update, replay=rng, counts=counts)
        while not exp.finished:
            rollout = collector.collect()
            segments, lr = segments_of(policy, rollout), cfg.lr(exp.remaining)
            figures = [update(segments, lr)]
            buffer.put(segments)
            replays = int(counts.poisson(cfg.replay_ratio)) if len(buffer) >= cfg.replay_start else 0
            for _ in range(replays):
                figures.append(update(buffer.draw(rng), lr))
            means = dict(zip(STATS, np.mean(figures, axis=0).tolist(), strict=True))
            exp.log(rollout, means | {"replays": float(replays), "lr": lr}, {"replay": buffer.lap()})
        return policy


def actor_q(exp: Experiment, network_options: dict[str, Any]) -> ActorQ:
    """The policy that an experiment's Config describes."""
    cfg, venv = exp.config, exp.venv
    return ActorQ(venv.single_observation_space, venv.single_action_space, network=cfg.network,
                  network_options=network_options, value_network=cfg.value_network, joined=True,
                  normalize_observations=cfg.normalize_observations, normalize_rewards=cfg.normalize_rewards,
                  reward_gamma=cfg.gamma, seed=exp.run.seed, compute=exp.run.dtype)


def replay_buffer(exp: Experiment) -> Replay:
    """The replay buffer of one rank. Raises UserError where it does not fit into memory."""
    cfg = exp.config
    return Replay(exp.policy, cfg.buffer_size, cfg.num_env, cfg.nsteps, stack=exp.frame_stack,
                  ranks=exp.comm.local_size)


def retrace(rewards: tf.Tensor, q: tf.Tensor, next_values: tf.Tensor, rho: tf.Tensor, terminated: tf.Tensor,
            dones: tf.Tensor, gamma: float) -> tf.Tensor:
    """Retrace(1) targets for the actions taken in B sequences of T steps (Munos et al. 2016, 1606.02647): [B, T].

    All inputs [B, T]: q = Q(s_t, a_t), next_values = V of what followed, rho = pi(a_t|s_t) / mu(a_t|s_t). With
        delta_t = r_t + gamma (1 - terminated_t) V(s'_t) - Q_t
        Q_ret_t - Q_t = delta_t + gamma (1 - done_t) min(1, rho_{t+1}) (Q_ret_{t+1} - Q_{t+1})
    """
    delta = losses.td_target(rewards, terminated, next_values, gamma) - q
    decay = gamma * (1.0 - tf.cast(dones[:, :-1], q.dtype)) * tf.minimum(rho[:, 1:], 1.0)
    errors = [delta[:, -1]]
    for t in reversed(range(decay.shape[1])):
        errors.append(delta[:, t] + decay[:, t] * errors[-1])
    return q + tf.stack(errors[::-1], axis=1)


def truncated_gradient(log_f: tf.Tensor, log_mu: tf.Tensor, taken: tf.Tensor, advs: tf.Tensor, q_advs: tf.Tensor,
                       c: float) -> tf.Tensor:
    """The policy gradient by f = pi(.|s), importance weights truncated at c, and what that leaves out: [..., K].

    min(c, rho_a) / f_a * advs at the action a that was taken (one-hot `taken`), and [1 - c / rho_b]_+ q_advs_b at every
    action b. log_f, log_mu, taken, q_advs = Q - V: [..., K]; advs = Q_ret - V: [...]. With advs = q_advs_a the mean of
    f * result over a ~ mu is f * q_advs, whatever c and mu (section 3.2). In logarithms, since f and mu may vanish.
    """
    log_f_a, log_mu_a = (tf.reduce_sum(taken * x, axis=-1) for x in (log_f, log_mu))
    weights = tf.exp(tf.minimum(math.log(c) - log_f_a, -log_mu_a))
    corrections = tf.nn.relu(1.0 - c * tf.exp(log_mu - log_f))
    return taken * (weights * advs)[..., None] + corrections * q_advs


def project(g: tf.Tensor, k: tf.Tensor, delta: float) -> tf.Tensor:
    """The vectors z nearest to g with k . z <= delta, all [..., K]: g - max(0, (k . g - delta) / |k|^2) k."""
    excess = tf.nn.relu(tf.reduce_sum(k * g, axis=-1, keepdims=True) - delta)
    return g - excess / tf.reduce_sum(tf.square(k), axis=-1, keepdims=True) * k


def outputs(policy: ActorQ, batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
    """log pi(.|s) and Q(s, .) of a batch of segments, [B, T + 1, K] each."""
    obs = batch["obs"]
    if policy.recurrent:
        found = policy.log_pi_and_q(obs, batch["states"], batch["firsts"])
    else:
        found = policy.log_pi_and_q(tf.reshape(obs, [-1, *obs.shape[2:]]))
    return tuple(tf.reshape(x, [*obs.shape[:2], x.shape[-1]]) for x in found)


def loss_and_stats(policy: ActorQ, cfg: Config, batch: Batch, log_average: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The loss whose gradient is ACER's, and FIGURES; log_average: the average policy's log pi [B, T, K]."""
    rewards, log_mu, end_values = (tf.cast(batch[name], policy.dtype) for name in ("rewards", "log_mu", "end_values"))
    terminated, dones = batch["terminated"], batch["dones"]
    log_f, q = outputs(policy, batch)
    values = tf.stop_gradient(expected(log_f, q))
    next_values = tf.where(dones & ~terminated, end_values, values[:, 1:])
    log_f, q, values = log_f[:, :-1], q[:, :-1], values[:, :-1]
    taken = tf.one_hot(batch["actions"], q.shape[-1], dtype=q.dtype)
    f, q_a, log_rho = tf.exp(log_f), losses.pick(q, batch["actions"]), losses.pick(log_f - log_mu, batch["actions"])

    returns = tf.stop_gradient(retrace(rewards, q_a, next_values, tf.exp(log_rho), terminated, dones, cfg.gamma))
    g = truncated_gradient(log_f, log_mu, taken, returns - values, q - values[..., None], cfg.c)
    gain = tf.reduce_sum(f * g * log_f, axis=-1)
    g -= cfg.ent_coef * (log_f + 1.0)  # the entropy's gradient by f
    k = -tf.exp(log_average) / (f + 1e-6)
    z = tf.stop_gradient(project(g, k, cfg.delta) if cfg.trust_region else g)
    value_loss = tf.reduce_mean(losses.value_loss(q_a, returns))
    loss = cfg.q_coef * value_loss - tf.reduce_mean(tf.reduce_sum(z * f, axis=-1))

    entropy = -tf.reduce_mean(tf.reduce_sum(f * log_f, axis=-1))
    kl_average = tf.reduce_mean(tf.reduce_sum(tf.exp(log_average) * (log_average - log_f), axis=-1))
    stats = [losses.explained_variance(q_a, returns), -tf.reduce_mean(gain), value_loss, entropy,
             tf.reduce_mean(tf.minimum(tf.exp(log_rho), cfg.c)), share(log_rho > math.log(cfg.c), q.dtype), kl_average,
             share(tf.reduce_sum(k * g, axis=-1) > cfg.delta, q.dtype)]
    return loss, tf.stack(stats)


def share(where: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """The share of elements that are true."""
    return tf.reduce_mean(tf.cast(where, dtype))


class Update(Stateful):
    """One step on a batch of segments, and the average policy."""

    STATE = ("optimizer", "average")

    def __init__(self, policy: ActorQ, optimizer: MpiRmsProp, cfg: Config) -> None:
        self.policy, self.optimizer, self.cfg, self.average = policy, optimizer, cfg, policy.copy()
        self._step = GradientStep(optimizer, self.gradient, policy.prefers_xla)
        self._follow = Compiled(self._move_average, xla=policy.prefers_xla)

    def __call__(self, segments: Segments, lr: float) -> np.ndarray:
        """Steps the parameters; returns the figures STATS."""
        batch = {name: tf.constant(array) for name, array in segments.data.items()}
        batch["end_values"] = tf.constant(self._end_values(segments))
        figures, = self._step(lr, batch)
        self._follow()
        return figures.numpy()

    def _end_values(self, segments: Segments) -> np.ndarray:
        """V of the final observations of episodes that a time limit cut, by the present policy; elsewhere 0: [B, T]."""
        values, ends = np.zeros(segments.data["dones"].shape, self.policy.dtype.as_numpy_dtype), segments.ends
        if len(ends.steps):
            memory = (ends.states, np.zeros(len(ends.steps), bool)) if self.policy.recurrent else ()
            values[ends.segments, ends.steps] = self.policy.values(ends.obs, *memory)
        return values

    def gradient(self, batch: Batch) -> tuple[Gradient, tf.Tensor]:
        """(gradient, FIGURES) of a batch."""
        log_average = outputs(self.average, batch)[0][:, :-1]
        with tf.GradientTape() as tape:
            loss, stats = loss_and_stats(self.policy, self.cfg, batch, log_average)
        return self.optimizer.gradient(tape, loss), stats

    def _move_average(self) -> None:
        """average <- alpha average + (1 - alpha) theta."""
        for mean, new in zip(self.average.trainable_variables, self.policy.trainable_variables, strict=True):
            mean.assign_sub((1.0 - self.cfg.alpha) * (mean - new))
