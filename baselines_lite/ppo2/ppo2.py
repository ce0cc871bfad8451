"""PPO with the clipped objective on vectorised environments (Schulman et al. 2017, 1707.06347, algorithm 1).

    for each update:
        collect nsteps steps of every environment with pi_old
        advs, returns = GAE(rewards, values)
        for noptepochs epochs, for each minibatch:
            theta <- Adam step on  L_clip - ent_coef H + vf_coef L_vf,  its gradient averaged over ranks
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from baselines_lite.common import losses
from baselines_lite.common.experiment import Experiment
from baselines_lite.common.flat import at
from baselines_lite.common.mpi import Comm
from baselines_lite.common.mpi_adam import AdamState, MpiAdam
from baselines_lite.common.policy import ActorCritic
from baselines_lite.common.returns import explained_variance, gae
from baselines_lite.common.rollout import Collector, Rollout, flatten, sequences
from baselines_lite.common.schedules import Schedule
from baselines_lite.common.seeding import stream
from baselines_lite.common.vec_env import EnvLike
from baselines_lite.ppo2.config import PRESETS, Config

CHECK_SYNC_EVERY = 100  # updates between two proofs that the ranks' parameters are equal

NOT_SAMPLES = ("indices", "mean", "std")
STATS = ("policy_loss", "value_loss", "entropy", "approxkl", "clipfrac")


def learn(env: EnvLike, total_timesteps: float = 1_000_000, **options: Any) -> ActorCritic:
    """Trains a policy in `env` for `total_timesteps` environment steps over all environments and ranks.

    env: a Gymnasium id, `module:Id`, an Env, a factory of Envs, or a VectorEnv in SAME_STEP mode. Options by keyword:
    those of `common.config.RunOptions` (seed, log_path, save_path, target_return, ...), of `ppo2.Config`, and of the
    network. Raises UserError for options that cannot be meant and spaces that are not supported.
    """
    with Experiment("ppo2", Config, PRESETS, env, total_timesteps, options) as exp:
        cfg, run, comm, policy = exp.config, exp.run, exp.comm, exp.policy
        noise_rank = comm.rank if cfg.streams == "rank" else 0
        adam = MpiAdam(policy.trainable_variables, comm, epsilon=cfg.adam_epsilon, max_grad_norm=cfg.max_grad_norm)
        update = Update(policy, adam, cfg, comm, stream(run.seed, "shuffle", noise_rank))
        collector = Collector(exp.venv, policy, cfg.nsteps, comm if cfg.statistics == "global" else Comm(),
                              seed=run.seed, rank=comm.rank, noise_rank=noise_rank, shape_rewards=exp.shape_rewards)
        while not exp.finished:
            rollout = collector.collect()
            terminated = rollout.dones if cfg.time_limit == "terminal" else rollout.terminated
            advs, returns = gae(rollout.rewards, rollout.values, rollout.next_values, terminated, rollout.dones,
                                cfg.gamma, cfg.lam)
            stats = update(rollout, advs, returns, exp.remaining)
            if exp.nupdates % CHECK_SYNC_EVERY == 0:
                adam.check_synced()
            exp.log(rollout, {"explained_variance": explained_variance(rollout.values, returns), **stats})
        return policy


def loss_and_stats(policy: ActorCritic, cfg: Config, batch: dict[str, tf.Tensor], cliprange: tf.Tensor,
                   cliprange_vf: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The minibatch loss and the figures STATS as a vector. `batch["advs"]` is standardised already."""
    pd, vpred = policy.evaluate(batch["obs"], batch.get("states"), batch.get("firsts"))
    logratio = pd.logp(batch["actions"]) - batch["logp"]
    ratio = tf.exp(logratio)
    policy_loss = tf.reduce_mean(losses.clipped_surrogate(ratio, batch["advs"], cliprange))
    if cfg.cliprange_vf is None:
        value_loss = tf.reduce_mean(losses.value_loss(vpred, batch["returns"]))
    else:
        value_loss = tf.reduce_mean(losses.clipped_value_loss(vpred, batch["values"], batch["returns"], cliprange_vf))
    entropy = tf.reduce_mean(pd.entropy())
    loss = policy_loss - cfg.ent_coef * entropy + cfg.vf_coef * value_loss
    stats = [policy_loss, value_loss, entropy, losses.approx_kl(logratio), losses.clip_fraction(ratio, cliprange)]
    return loss, tf.stack(stats)


class Update:
    """All epochs and minibatches of one update, in one compiled call.

    One process: XLA compiles all of it. Several: XLA compiles the work between two Allreduces of [gradient, stats],
    which is to apply one averaged gradient and to compute the next, and TensorFlow runs the loop around it. (A call
    from Python for each minibatch costs 360 to 770 us, this 280.) Convolutions on a CPU: XLA compiles Adam's step only.
    """

    def __init__(self, policy: ActorCritic, adam: MpiAdam, cfg: Config, comm: Comm, rng: np.random.Generator) -> None:
        self.policy, self.adam, self.cfg, self.comm, self.rng = policy, adam, cfg, comm, rng
        alone = comm.size == 1
        self.length = cfg.sequence_length() if policy.recurrent else 1
        self._update = tf.function(self._all_minibatches, jit_compile=alone and policy.prefers_xla)
        self._step = tf.function(lambda state, vector, lr: adam.step(state, vector[: -len(STATS)], lr),
                                 jit_compile=True)
        self._step_and_gradient = tf.function(self._step_then_gradient, jit_compile=not alone and policy.prefers_xla)

    def __call__(self, rollout: Rollout, advs: np.ndarray, returns: np.ndarray, remaining: float) -> dict[str, float]:
        """Steps the parameters on a rollout; returns the mean of STATS over the minibatches, and the rates used."""
        cfg, dtype = self.cfg, self.policy.dtype
        cut = (lambda array: sequences(array, self.length)) if self.policy.recurrent else flatten
        indices = self.shuffle(advs.size // self.length)
        mean, std = self.moments(cut(advs), indices)
        rates = {"lr": cfg.lr(remaining), "cliprange": cfg.cliprange(remaining)}
        clip_vf = (cfg.cliprange_vf or Schedule("0"))(remaining)
        floats = {"advs": advs, "returns": returns, "values": rollout.values, "logp": rollout.logp}
        data = {name: tf.constant(cut(array), dtype) for name, array in floats.items()}
        data |= {"obs": tf.constant(cut(rollout.obs)), "actions": tf.constant(cut(rollout.actions))}
        if self.policy.recurrent:  # each sequence begins with the memory that the rollout had there
            starts = flatten(rollout.states[:: self.length])
            data |= {"states": tf.constant(starts), "firsts": tf.constant(cut(rollout.firsts))}
        data |= {"indices": tf.constant(indices), "mean": tf.constant(mean, dtype), "std": tf.constant(std, dtype)}
        constants = tf.constant([rates["lr"], rates["cliprange"], clip_vf], dtype)
        total, count = self._update(data, constants)
        return dict(zip(STATS, total.numpy() / count.numpy(), strict=True)) | rates

    def shuffle(self, count: int) -> np.ndarray:
        """Indices of every minibatch's samples (or sequences): [noptepochs * nminibatches, count / nminibatches]."""
        epochs = [self.rng.permutation(count) for _ in range(self.cfg.noptepochs)]
        return np.concatenate(epochs).reshape(self.cfg.noptepochs * self.cfg.nminibatches, -1).astype(np.int32)

    def moments(self, advs: np.ndarray, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation + 1e-8 of each minibatch's advantages, over all ranks or this one's own.

        The shuffle is known beforehand, so that one collective serves all minibatches of the update.
        """
        chosen = advs[indices].astype(np.float64).reshape(len(indices), -1)
        comm = self.comm if self.cfg.adv_moments == "global" else Comm()
        centre = comm.mean(np.array([chosen.mean()]))  # shifted, so that the squares do not cancel
        sums = comm.mean(np.stack([(chosen - centre).mean(axis=1), np.square(chosen - centre).mean(axis=1)]))
        return sums[0] + centre, np.sqrt(np.maximum(sums[1] - np.square(sums[0]), 0.0)) + 1e-8

    def _minibatch_gradient(self, theta: tf.Tensor, i: tf.Tensor, data: dict[str, tf.Tensor],
                            constants: tf.Tensor) -> tf.Tensor:
        """[gradient, stats] of minibatch i at the parameters theta, as one vector."""
        indices, mean, std = (tf.gather(data[name], i) for name in ("indices", "mean", "std"))  # [i] recompiles per i
        batch = {name: tf.gather(array, indices) for name, array in data.items() if name not in NOT_SAMPLES}
        if self.policy.recurrent:
            batch |= {name: tf.reshape(batch[name], [-1, *batch[name].shape[2:]])
                      for name in ("actions", "advs", "returns", "values", "logp")}
        batch["advs"] = (batch["advs"] - mean) / std
        with tf.GradientTape() as tape:
            tape.watch(theta)
            with at(self.policy, self.adam.parameters, theta):
                loss, stats = loss_and_stats(self.policy, self.cfg, batch, constants[1], constants[2])
        return tf.concat([tape.gradient(loss, theta), stats], axis=0)

    def _step_then_gradient(self, state: AdamState, vector: tf.Tensor, i: tf.Tensor, data: dict[str, tf.Tensor],
                            constants: tf.Tensor) -> tuple[AdamState, tf.Tensor]:
        """Applies the averaged [gradient, stats] of the last minibatch, and computes that of minibatch i."""
        state = self._step(state, vector, constants[0])
        return state, self._minibatch_gradient(state.theta, i, data, constants)

    def _all_minibatches(self, data: dict[str, tf.Tensor], constants: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Every minibatch in turn, or until target_kl; returns the sum of the stats and the number of minibatches."""
        count = data["indices"].shape[0]

        def close(vector: tf.Tensor) -> tf.Tensor | bool:  # of averaged figures: the same on every rank
            limit = self.cfg.target_kl
            return True if limit is None else vector[-len(STATS) :][STATS.index("approxkl")] <= 1.5 * limit

        def minibatch(i: tf.Tensor, state: AdamState, vector: tf.Tensor, total: tf.Tensor) -> tuple:
            state, vector = self._step_and_gradient(state, vector, i, data, constants)
            vector = self.adam.average(vector)
            return i + 1, state, vector, total + vector[-len(STATS) :]

        state = self.adam.state()
        vector = self.adam.average(self._minibatch_gradient(state.theta, tf.constant(0), data, constants))
        i, state, vector, total = tf.while_loop(
            lambda i, state, vector, total: tf.logical_and(i < count, close(vector)), minibatch,
            (tf.constant(1), state, vector, vector[-len(STATS) :]), parallel_iterations=1)
        last = self._step(state, vector, constants[0])
        self.adam.assign(AdamState(*(tf.where(close(vector), new, old) for new, old in zip(last, state, strict=True))))
        return total, i
