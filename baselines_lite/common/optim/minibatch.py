"""Steps on minibatches of a rollout: all epochs of an update in one compiled call, gradients averaged over ranks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from baselines_lite.common.optim.gradient_step import GradientStep
from baselines_lite.common.optim.losses import Batch
from baselines_lite.common.optim.mpi_optimizer import Gradient, MpiOptimizer
from baselines_lite.common.policies.actor_critic import ActorCritic
from baselines_lite.common.sampling.rollout import Rollout, flatten, sequences
from baselines_lite.common.system.compiled import Compiled, graph
from baselines_lite.common.system.mpi import Comm
from baselines_lite.common.system.state import Stateful

# Parameters times samples of other ranks up to which a rank computes the minibatches of all ranks by itself. Two ranks'
# PPO on HalfCheetah, 11,000 parameters, is as fast either way with minibatches of 128: such a sample takes 0.5 us more,
# an Allreduce 90 us, since XLA's code has to be left for it. With Humanoid's 55,000 the Allreduce wins at 64.
LIGHT = 2_000_000

# (minibatch, constants) -> (loss [], figures to log [len(stats)]). Samples are [b, ...]; of a recurrent policy, "obs"
# and "firsts" are sequences [b, L, ...] with "states" [b, S] before them, the rest flat, [b L, ...].
Loss = Callable[[Batch, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def training_data(policy: ActorCritic, rollout: Rollout, length: int = 1, **more: np.ndarray) -> Batch:
    """A rollout's observations and actions, and `more` arrays [T, N], as samples [T N, ...].

    Of a recurrent policy: as sequences [T N / length, length, ...], each with the memory that the rollout had there.
    """
    cut = (lambda array: sequences(array, length)) if policy.recurrent else flatten
    data = {name: tf.constant(cut(array), policy.dtype) for name, array in more.items()}
    data |= {"obs": tf.constant(cut(rollout.obs)), "actions": tf.constant(cut(rollout.actions))}
    if policy.recurrent:
        data |= {"states": tf.constant(flatten(rollout.states[::length])), "firsts": tf.constant(cut(rollout.firsts))}
    return data


def shuffled(rng: np.random.Generator, count: int, epochs: int, nminibatches: int) -> np.ndarray:
    """Indices of every minibatch of every epoch: [epochs * nminibatches, count // nminibatches], int32.

    Where nminibatches does not divide the count, each epoch leaves out a few, drawn anew.
    """
    size = count // nminibatches
    each = [rng.permutation(count)[: size * nminibatches] for _ in range(epochs)]
    return np.concatenate(each).reshape(epochs * nminibatches, size).astype(np.int32)


def of_all_ranks(comm: Comm, data: Batch, indices: np.ndarray) -> tuple[Batch, np.ndarray]:
    """Minibatches of N ranks joined: the first with the first of every other rank, and so on. One collective.

    Samples [B, ...] become [N B, ...], indices [count, b] become [count, N b].
    """
    everyone = comm.gather(({name: array.numpy() for name, array in data.items()}, indices))
    samples, picked = zip(*everyone, strict=True)
    offsets = np.arange(comm.size, dtype=np.int32) * next(iter(data.values())).shape[0]
    return ({name: tf.constant(np.concatenate([part[name] for part in samples])) for name in data},
            np.concatenate([rows + offset for rows, offset in zip(picked, offsets, strict=True)], axis=1))


class Minibatches(Stateful):
    """Steps an optimizer (MpiAdam, MpiRmsProp) on minibatches of a loss.

    One process: XLA compiles the whole loop. Several: it compiles the gradient, and TensorFlow runs the loop around
    that, the Allreduce of [gradient, stats] and the step. Several on one host, where little is to be computed: each
    takes the minibatches of all and does as one process does. Where a loss is a mean over samples, the gradient of
    joined minibatches is the mean of theirs. Convolutions on a CPU: TensorFlow runs all of it.

    `stats` names the loss's figures. With `stop_at=(name, limit)` no step is taken, and none after it, on a minibatch
    whose figure of that name exceeds the limit; `stopped` says whether the last call ended so, on all ranks alike, and
    `share` how much of its minibatches it looked at. `joined=False`: ranks' minibatches are never joined, as where a
    rank's figures `per_minibatch` are its own.
    """

    STATE = ("optimizer",)

    def __init__(self, policy: ActorCritic, optimizer: MpiOptimizer, loss: Loss, stats: Sequence[str],
                 stop_at: tuple[str, float] | None = None, joined: bool = True) -> None:
        self.policy, self.optimizer, self.loss, self.stats = policy, optimizer, loss, tuple(stats)
        self.stop_at, self.stopped, self.share, self.joined = stop_at, False, 1.0, joined
        self._no_constants = tf.constant((), policy.dtype)
        xla = policy.prefers_xla
        self._alone = Compiled(partial(self._all_minibatches, graph(self._gradient_of_one, xla=False)), xla=xla)
        own = graph(self._gradient_of_one, xla=xla)
        self._averaging = Compiled(partial(self._all_minibatches, lambda *of: optimizer.average(*own(*of))), xla=False)
        self._whole_batch = GradientStep(optimizer, self._gradient, xla)

    def __call__(self, data: Batch, indices: np.ndarray | None, lr: float, constants: Sequence[float] = (),
                 per_minibatch: Mapping[str, np.ndarray] | None = None) -> dict[str, float]:
        """Takes a step on each of the minibatches that `indices` [count, size] picks from `data`, in turn.

        None: one step on all of the data. `per_minibatch` are figures [count] that the loss finds in its batch by name.
        Returns the stats' means over the minibatches that were looked at.
        """
        dtype = self.policy.dtype
        constants = tf.constant(constants, dtype) if constants else self._no_constants
        if indices is None:
            means = self._whole_batch(lr, data, constants)[0].numpy()[:-1]  # without the norm
        else:
            comm, alone = self.optimizer.comm, self.steps_alone(indices.shape[1])
            if alone and comm.size > 1:
                data, indices = of_all_ranks(comm, data, indices)
            each = {name: tf.constant(array, dtype) for name, array in (per_minibatch or {}).items()}
            steps = self._alone if alone else self._averaging
            total, count, close = steps(tf.constant(np.asarray(lr), dtype), data, tf.constant(indices), each, constants)
            means = total.numpy() / count.numpy()
            self.stopped, self.share = self.stop_at is not None and not close.numpy(), count.numpy() / len(indices)
        return dict(zip(self.stats, means.tolist(), strict=True))

    def steps_alone(self, samples: int) -> bool:
        """Whether a process takes steps on so many samples of each rank without an Allreduce. Equal on all ranks.

        Ranks on different processors, or on GPUs, would not find the same to the bit.
        """
        comm = self.optimizer.comm
        if comm.size == 1:
            return True
        work = (comm.size - 1) * samples * sum(v.shape.num_elements() for v in self.optimizer.variables)
        return (self.joined and work <= LIGHT and comm.local_size == comm.size and self.policy.prefers_xla
                and not self.policy.recurrent and not tf.config.list_logical_devices("GPU"))

    def _gradient(self, batch: Batch, constants: tf.Tensor) -> tuple[Gradient, tf.Tensor]:
        """(gradient, stats) of a batch."""
        if self.policy.recurrent:
            batch = {name: tf.reshape(x, [-1, *x.shape[2:]]) if name not in ("obs", "firsts", "states") and x.shape.rank
                     else x for name, x in batch.items()}
        with tf.GradientTape() as tape:
            loss, stats = self.loss(batch, constants)
        return self.optimizer.gradient(tape, loss), stats

    def _gradient_of_one(self, i: tf.Tensor, data: Batch, indices: tf.Tensor, each: Batch, constants: tf.Tensor
                         ) -> tuple[Gradient, tf.Tensor]:
        """(gradient, stats) of minibatch i."""
        rows = tf.gather(indices, i)  # indices[i] would be compiled for each i
        batch = {name: tf.gather(array, rows) for name, array in data.items()}
        return self._gradient(batch | {name: tf.gather(array, i) for name, array in each.items()}, constants)

    def _all_minibatches(self, gradient: Callable[..., tuple[Gradient, tf.Tensor]], lr: tf.Tensor, data: Batch,
                         indices: tf.Tensor, *more: Any) -> tuple[tf.Tensor, ...]:
        """A step on every minibatch in turn, or until stop_at: (sum of the stats, number of minibatches, if all)."""
        def minibatch(i: tf.Tensor, go_on: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            g, stats = gradient(i, data, indices, *more)
            return i + 1, self._step(g, stats, lr), total + stats

        begin = tf.constant(0), tf.constant(True), tf.zeros([len(self.stats)], lr.dtype)
        count, close, total = tf.while_loop(lambda i, go_on, _: (i < indices.shape[0]) & go_on, minibatch, begin,
                                            parallel_iterations=1)
        return total, count, close

    def _step(self, g: Gradient, stats: tf.Tensor, lr: tf.Tensor) -> tf.Tensor:
        """Applies an averaged gradient, unless its stats forbid it; whether to go on, the same on every rank."""
        if self.stop_at is None:
            self.optimizer.apply(g, lr)
            return tf.constant(True)
        name, limit = self.stop_at
        close = stats[self.stats.index(name)] <= limit
        tf.cond(close, lambda: self.optimizer.apply(g, lr), lambda: tf.zeros([], lr.dtype))
        return close
