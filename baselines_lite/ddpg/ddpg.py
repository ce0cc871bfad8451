"""Deep deterministic policy gradient (Lillicrap et al. 2016, 1509.02971).

    for each round:
        act by pi(s) plus noise for nsteps steps; store (s, a, r, s', terminated) in the replay buffer
        train_steps times: draw a minibatch;  y = r + gamma (1 - terminated) Q'(s', pi'(s'))
            theta <- one Adam step on  mean (Q(s, a) - y)^2  for Q and on  -mean Q(s, pi(s))  for pi,
                     its gradient averaged over ranks
            theta' <- theta' + tau (theta - theta')
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from baselines_lite.common.envs.vec_env import EnvLike
from baselines_lite.common.experiment.experiment import Experiment
from baselines_lite.common.networks.layers import Dense
from baselines_lite.common.optim import losses
from baselines_lite.common.optim.mpi_adam import MpiAdam
from baselines_lite.common.optim.mpi_optimizer import Gradient
from baselines_lite.common.policies.deterministic_policy import DeterministicPolicy
from baselines_lite.common.sampling.replay_buffer import ReplayBuffer, Transitions
from baselines_lite.common.sampling.replay_collector import frame_of
from baselines_lite.common.system.compiled import Compiled, graph
from baselines_lite.common.system.mpi import Comm
from baselines_lite.common.system.seeding import stream
from baselines_lite.common.system.state import Stateful

from .config import PRESETS, Config
from .exploration import make_exploration

STATS = ("explained_variance", "policy_loss", "value_loss", "entropy", "mean_q")


def learn(env: EnvLike, total_timesteps: float | None = None, **options: Any) -> DeterministicPolicy:
    """Trains a policy in `env` for `total_timesteps` environment steps over all environments and ranks.

    env: a Gymnasium id, `module:Id`, an Env, a factory of Envs, or a VectorEnv. total_timesteps: by default a million.
    Options by keyword: those of `experiment.config.RunOptions` (seed, log_path, save_path, ...), of `Config`, and of
    the network. Raises UserError for options that cannot be meant, spaces that are not supported, and a replay buffer
    that memory cannot hold.
    """
    with Experiment(__package__, Config, PRESETS, env, total_timesteps, options, make_policy=deterministic_policy,
                    make_buffer=replay_buffer) as exp:
        cfg, run, comm, policy, buffer = exp.config, exp.run, exp.comm, exp.policy, exp.buffer
        collector = exp.replay_collector()
        update = Update(policy, cfg, comm)
        exploration = make_exploration(policy, cfg, stream(run.seed, "noise", comm.rank))
        rng = stream(run.seed, "replay", comm.rank)
        exp.keep(update=update, exploration=exploration, replay=rng)
        while not exp.finished:
            starting = exp.total_timesteps < cfg.learning_starts
            steps = collector.collect(cfg.nsteps, exploration.at_random if starting else exploration.actor())
            if policy.normalize.obs is not None:
                policy.normalize.update_obs(buffer.latest(steps), comm)
            stats = dict.fromkeys(STATS, float("nan"))
            rates = {"actor_lr": cfg.actor_lr(exp.remaining), "critic_lr": cfg.critic_lr(exp.remaining)}
            if exp.total_timesteps + exp.batch > cfg.learning_starts:
                batches = draw(buffer, policy, rng, cfg.train_steps, cfg.batch_size)
                stats = update(batches, *rates.values())
                exploration.adapt(batches.obs[0], comm)
            exp.log(collector.drain(), {**stats, **update.figures, **exploration.figures, **rates})
        return policy


def deterministic_policy(exp: Experiment, network_options: dict[str, Any]) -> DeterministicPolicy:
    """The policy that an experiment's Config describes."""
    cfg, venv = exp.config, exp.venv
    return DeterministicPolicy(venv.single_observation_space, venv.single_action_space, network=cfg.network,
                               network_options=network_options, seed=exp.run.seed, compute=exp.run.dtype,
                               normalize_observations=cfg.normalize_observations)


def replay_buffer(exp: Experiment) -> ReplayBuffer:
    """The replay buffer of one rank. Raises UserError where it does not fit into memory."""
    action = np.zeros(exp.policy.num_actions, np.float32)
    return ReplayBuffer(exp.config.buffer_size, exp.config.num_env, frame_of(exp.policy.encoder, 1), action,
                        ranks=exp.comm.local_size)


def draw(buffer: ReplayBuffer, policy: DeterministicPolicy, rng: np.random.Generator, count: int, batch_size: int
         ) -> Transitions:
    """`count` minibatches from the buffer, their observations normalised as of now: arrays [count, batch_size, ...]."""
    index = buffer.sample(rng, count * batch_size)
    t = buffer[index]
    t = t._replace(obs=policy.normalize.normalize_obs(t.obs), next_obs=policy.normalize.normalize_obs(t.next_obs))
    return Transitions(*(array.reshape(count, batch_size, *array.shape[1:]) for array in t))


class Returns(NamedTuple):
    """Running moments of the targets y, float64 []: how many, their mean, and the mean of their squared deviations."""

    count: tf.Tensor
    mean: tf.Tensor
    var: tf.Tensor

    @property
    def std(self) -> tf.Tensor:
        """The deviation; 1 before any target."""
        return tf.where(self.count > 0, tf.sqrt(self.var + 1e-8), 1.0)

    def merged(self, count: float, shift: tf.Tensor, square: tf.Tensor) -> Returns:
        """The moments with `count` more targets (Chan, Golub and LeVeque 1979).

        Given as the means of y - mean and (y - mean)^2 by the present mean: squares of y itself would cancel.
        """
        total = self.count + count
        old, new = self.count / total, count / total
        var = old * self.var + new * (square - tf.square(shift)) + old * new * tf.square(shift)
        return Returns(total, self.mean + new * shift, tf.maximum(var, 0.0))


class Update(Stateful):
    """Gradient steps on minibatches, the target networks, and the moments of the returns.

    One process: XLA compiles a whole round in one call. Several: what lies between two Allreduces.
    """

    STATE = ("optimizer", "target", "_returns")

    def __init__(self, policy: DeterministicPolicy, cfg: Config, comm: Comm) -> None:
        self.policy, self.cfg, self.comm = policy, cfg, comm
        self.optimizer = MpiAdam([*policy.pi_variables, *policy.q_variables], comm, max_grad_norm=cfg.max_grad_norm)
        self.target = policy.copy()
        self._returns = tf.Variable([0.0, 0.0, 0.0], dtype=tf.float64, trainable=False)
        alone, xla = comm.size == 1, policy.prefers_xla
        self._round = Compiled(self._all_minibatches, xla=alone and xla)
        self._gradient, self._step = (graph(f, xla=not alone and xla) for f in (self.gradient, self.step))

    @property
    def returns(self) -> Returns:
        """The moments of the targets so far."""
        return Returns(*tf.unstack(tf.convert_to_tensor(self._returns)))

    @property
    def figures(self) -> dict[str, float]:
        """What to log beside STATS."""
        return {"return_std": float(self.returns.std)} if self.cfg.normalize_returns else {}

    def __call__(self, batches: Transitions, actor_lr: float, critic_lr: float) -> dict[str, float]:
        """A step on each of the minibatches [count, B, ...] in turn; returns the means of STATS."""
        rates = tf.constant([actor_lr, critic_lr], self.policy.dtype)
        total = self._round(Transitions(*map(tf.constant, batches)), rates)
        return dict(zip(STATS, (total.numpy()[: len(STATS)] / len(batches.obs)).tolist(), strict=True))

    def _all_minibatches(self, batches: Transitions, rates: tf.Tensor) -> tf.Tensor:
        def minibatch(i: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            g, figures = self.optimizer.average(*self._gradient(i, batches))
            self._step(g, figures, rates)
            return i + 1, total + figures

        return tf.while_loop(lambda i, _: i < batches.obs.shape[0], minibatch,
                             (tf.constant(0), tf.zeros([len(STATS) + 2], rates.dtype)), parallel_iterations=1)[1]

    def gradient(self, i: tf.Tensor, batches: Transitions) -> tuple[Gradient, tf.Tensor]:
        """(gradient, [STATS, mean of y - its running mean, and of its square]) of minibatch i."""
        cfg, policy, target, dtype, returns = self.cfg, self.policy, self.target, self.policy.dtype, self.returns
        batch = Transitions(*(tf.gather(array, i) for array in batches))
        mean, std = tf.cast(returns.mean, dtype), tf.cast(returns.std, dtype)
        q_next = target.q(batch.next_obs, target.pi(batch.next_obs))
        y = losses.td_target(batch.rewards, batch.terminated, mean + std * q_next, cfg.gamma)
        with tf.GradientTape() as critic:
            q = policy.q(batch.obs, batch.actions)
            value_loss = tf.reduce_mean(tf.square(q - (y - mean) / std))
            penalty = sum(tf.nn.l2_loss(w) for w in policy.q_weights()) if cfg.critic_l2_reg else 0.0
            critic_loss = value_loss + cfg.critic_l2_reg * penalty
        with tf.GradientTape() as actor:
            policy_loss = -tf.reduce_mean(policy.q(batch.obs, policy.pi(batch.obs)))
        g = [*actor.gradient(policy_loss, policy.pi_variables), *critic.gradient(critic_loss, policy.q_variables)]
        entropy = tf.constant(float("nan"), dtype)  # a deterministic policy has none
        raw = mean + std * q
        figures = [losses.explained_variance(raw, y), policy_loss, value_loss, entropy, tf.reduce_mean(raw),
                   tf.reduce_mean(y - mean), tf.reduce_mean(tf.square(y - mean))]
        return g, tf.stack(figures)

    def step(self, g: Gradient, figures: tf.Tensor, rates: tf.Tensor) -> None:
        """One step with an averaged gradient and figures; rates: of actor and critic."""
        cfg, policy = self.cfg, self.policy
        self.optimizer.apply(g, [rates[0]] * len(policy.pi_variables) + [rates[1]] * len(policy.q_variables))
        for old, new in zip(self.target.trainable_variables, policy.trainable_variables, strict=True):
            old.assign_add(cfg.tau * (new - old))
        if cfg.normalize_returns:
            before = self.returns
            shift, square = tf.unstack(tf.cast(figures[-2:], tf.float64))
            after = before.merged(cfg.batch_size * self.comm.size, shift, square)
            self._returns.assign(tf.stack(after))
            if cfg.popart:
                for each in (policy, self.target):
                    self.preserve(each.q_head, before, after)

    def preserve(self, head: Dense, old: Returns, new: Returns) -> None:
        """Makes Q, in units of the new moments, what it was in the old ones (Pop-Art, 1602.07714, eq. 5).

        Q = mean + std (W h + b) for either, if W' = W std / std' and b' = (b std + mean - mean') / std'. The first
        moments come before anything was learned: there is nothing to preserve.
        """
        w, b = head.w.value(), head.b.value()
        old_std, new_std, shift = (tf.cast(x, w.dtype) for x in (old.std, new.std, old.mean - new.mean))
        head.w.assign(tf.where(old.count > 0, w * (old_std / new_std), w))
        head.b.assign(tf.where(old.count > 0, (b * old_std + shift) / new_std, b))
