"""Steps on minibatches of a rollout: all epochs of an update in one compiled call, gradients averaged over ranks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from baselines_lite.common.compiled import Compiled, graph
from baselines_lite.common.flat import Vectors
from baselines_lite.common.gradient_step import GradientStep
from baselines_lite.common.mpi_optimizer import MpiOptimizer
from baselines_lite.common.policy import ActorCritic
from baselines_lite.common.rollout import Rollout, flatten, sequences

Batch = dict[str, tf.Tensor]
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


class Minibatches:
    """Steps an optimizer (MpiAdam, MpiRmsProp) on minibatches of a loss.

    One process: XLA compiles the whole loop. Several: XLA compiles the work between two Allreduces of [gradient,
    stats], which is to apply one averaged gradient and to compute the next, and TensorFlow runs the loop around it. (A
    call from Python for each minibatch costs 360 to 770 us, this 280.) Convolutions on a CPU: XLA compiles the
    optimizer's step only.

    `stats` names the loss's figures. With `stop_at=(name, limit)` no step is taken, and none after it, on a minibatch
    whose figure of that name exceeds the limit.
    """

    def __init__(self, policy: ActorCritic, optimizer: MpiOptimizer, loss: Loss, stats: Sequence[str],
                 stop_at: tuple[str, float] | None = None) -> None:
        self.policy, self.optimizer, self.loss, self.stats = policy, optimizer, loss, tuple(stats)
        self.stop_at = stop_at
        alone, xla = optimizer.comm.size == 1, policy.prefers_xla
        self._update = Compiled(self._all_minibatches, xla=alone and xla)
        self._whole_batch = GradientStep(optimizer, self._gradient, xla)
        self._step_and_gradient = graph(self._step_then_gradient, xla=not alone and xla)
        self._step = graph(optimizer.step, xla=True)

    def __call__(self, data: Batch, indices: np.ndarray | None, lr: float, constants: Sequence[float] = (),
                 per_minibatch: Mapping[str, np.ndarray] | None = None) -> dict[str, float]:
        """Takes a step on each of the minibatches that `indices` [count, size] picks from `data`, in turn.

        None: one step on all of the data. `per_minibatch` are figures [count] that the loss finds in its batch by name.
        Returns the stats' means over the minibatches that were looked at.
        """
        dtype = self.policy.dtype
        state, rates = self.optimizer.state(), tf.constant([lr, *constants], dtype)
        if indices is None:
            state, figures = self._whole_batch(state, lr, data, rates)
            means = figures.numpy()[: len(self.stats)]
        else:
            each = {name: tf.constant(array, dtype) for name, array in (per_minibatch or {}).items()}
            state, total, count = self._update(state, data, tf.constant(indices), each, rates)
            means = total.numpy() / count.numpy()
        self.optimizer.assign(state)
        return dict(zip(self.stats, means.tolist(), strict=True))

    def _gradient(self, theta: Vectors, batch: Batch, rates: tf.Tensor) -> tuple[Vectors, tf.Tensor]:
        """(gradient, stats) of a batch at the parameters theta."""
        if self.policy.recurrent:
            batch = {name: tf.reshape(x, [-1, *x.shape[2:]]) if name not in ("obs", "firsts", "states") and x.shape.rank
                     else x for name, x in batch.items()}
        with tf.GradientTape() as tape:
            tape.watch(theta)
            with self.optimizer.parts.at(self.policy, theta):
                loss, stats = self.loss(batch, rates[1:])
        return tape.gradient(loss, theta), stats

    def _gradient_of(self, theta: Vectors, i: tf.Tensor, data: Batch, indices: tf.Tensor, each: Batch, rates: tf.Tensor
                     ) -> tuple[Vectors, tf.Tensor]:
        """(gradient, stats) of minibatch i at the parameters theta."""
        rows = tf.gather(indices, i)  # indices[i] would be compiled for each i
        batch = {name: tf.gather(array, rows) for name, array in data.items()}
        return self._gradient(theta, batch | {name: tf.gather(array, i) for name, array in each.items()}, rates)

    def _step_then_gradient(self, state: Any, g: Vectors, *inputs: tf.Tensor | Batch) -> tuple[Any, Vectors, tf.Tensor]:
        """Applies the averaged gradient of the last minibatch, and computes that of another, with its stats."""
        state = self._step(state, g, inputs[-1][0])
        return state, *self._gradient_of(state.theta, *inputs)

    def _all_minibatches(self, state: Any, data: Batch, indices: tf.Tensor, each: Batch, rates: tf.Tensor
                         ) -> tuple[Any, tf.Tensor, tf.Tensor]:
        """Every minibatch in turn, or until stop_at: (the state then, the sum of the stats, the number of minibatches).
        """
        inputs = (data, indices, each, rates)

        def close(stats: tf.Tensor) -> tf.Tensor | bool:  # averaged: the same on every rank
            if self.stop_at is None:
                return True
            name, limit = self.stop_at
            return stats[self.stats.index(name)] <= limit

        def minibatch(i: tf.Tensor, state: Any, g: Vectors, stats: tf.Tensor, total: tf.Tensor) -> tuple:
            state, g, stats = self._step_and_gradient(state, g, i, *inputs)
            g, stats = self.optimizer.average(g, stats)
            return i + 1, state, g, stats, total + stats

        g, stats = self.optimizer.average(*self._gradient_of(state.theta, tf.constant(0), *inputs))
        i, state, g, stats, total = tf.while_loop(
            lambda i, state, g, stats, total: tf.logical_and(i < indices.shape[0], close(stats)), minibatch,
            (tf.constant(1), state, g, stats, stats), parallel_iterations=1)
        last = self._step(state, g, rates[0])
        if self.stop_at is not None:
            last = tf.nest.map_structure(lambda new, old: tf.where(close(stats), new, old), last, state)
        return last, total, i
