"""First-order optimizers whose gradient is averaged over ranks.

Every rank applies the same averaged gradient to the same parameters, so that parameters stay bitwise equal, which
`Experiment.log` checks. A compiled update begins with `state()`, carries it through its steps (`average`, then `step`),
and ends with `assign(state)`: inside a loop, tensors are far cheaper than variables. Parameters, gradients and moments
are lists of vectors; see flat.Parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from baselines_lite.common.flat import Parts, Vectors, get_flat, set_flat
from baselines_lite.common.mpi import Comm


class MpiOptimizer(tf.Module):
    """What MpiAdam and MpiRmsProp share. Rank 0 first gives its parameters to all ranks.

    `State` is a NamedTuple whose first field is theta, the parameters; `slots` are the variables behind the others.
    """

    State: type

    def __init__(self, variables: Sequence[tf.Variable], comm: Comm, max_grad_norm: float | None) -> None:
        super().__init__()
        self.parameters, self.comm, self.max_grad_norm = list(variables), comm, max_grad_norm
        self.parts = Parts(self.parameters)
        self.dtype = self.parameters[0].dtype
        self.slots: list[Any] = []
        if comm.size > 1:
            set_flat(self.parameters, comm.broadcast(get_flat(self.parameters)))

    def slot(self, value: float, name: str) -> list[tf.Variable]:
        """Variables like the parameters, filled with a value."""
        return [tf.Variable(tf.fill([size], tf.cast(value, self.dtype)), trainable=False, name=name)
                for size in self.parts.sizes]

    def step(self, state: Any, g: Vectors, lr: tf.Tensor | Vectors) -> Any:
        """The state after one step down the gradient g, with one learning rate or one for each element."""
        raise NotImplementedError

    def clip(self, g: Vectors) -> Vectors:
        """g, scaled down to the Euclidean norm `max_grad_norm` if it is longer."""
        limit = self.max_grad_norm
        if limit is None:
            return g
        scale = limit / tf.maximum(tf.linalg.global_norm(g), limit)
        return [part * scale for part in g]

    def state(self) -> Any:
        """The present parameters and moments."""
        return self.State(self.parts.join(self.parameters),
                          *tf.nest.map_structure(lambda slot: slot.read_value(), list(self.slots)))

    def average(self, g: Vectors, figures: tf.Tensor) -> tuple[Vectors, tf.Tensor]:
        """Means over ranks of a gradient and of figures [k], inside a compiled function: one Allreduce. Not inside XLA.
        """
        if self.comm.size == 1:
            return g, figures
        vector = tf.concat([*g, figures], axis=0)
        averaged = tf.numpy_function(lambda x: self.comm.mean(x.copy()), [vector], vector.dtype)
        *g, figures = tf.split(tf.ensure_shape(averaged, vector.shape), [*self.parts.sizes, figures.shape[0]])
        return g, figures

    def assign(self, state: Any) -> None:
        """Writes a state back to the variables."""
        for variable, part in zip(self.parameters, self.parts.split(state[0]), strict=True):
            variable.assign(part)
        for slot, value in zip(tf.nest.flatten(list(self.slots)), tf.nest.flatten(list(state[1:])), strict=True):
            slot.assign(value)
