"""First-order optimizers on a flat parameter vector, the gradient averaged over ranks.

Every rank applies the same averaged gradient to the same parameters, so that parameters stay bitwise equal, which
`check_synced` proves. A compiled update begins with `state()`, carries it through its steps (`average`, then `step`),
and ends with `assign(state)`: inside a loop, tensors are far cheaper than variables.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from baselines_lite.common.flat import flatten, get_flat, set_flat, unflatten
from baselines_lite.common.mpi import Comm


class MpiOptimizer(tf.Module):
    """What MpiAdam and MpiRmsProp share. Rank 0 first gives its parameters to all ranks.

    `State` is a NamedTuple whose first field is theta [P]; `slots` are the variables behind its other fields.
    """

    State: type

    def __init__(self, variables: Sequence[tf.Variable], comm: Comm, max_grad_norm: float | None) -> None:
        super().__init__()
        self.parameters, self.comm, self.max_grad_norm = list(variables), comm, max_grad_norm
        self.dtype = self.parameters[0].dtype
        self.size = sum(int(np.prod(v.shape)) for v in self.parameters)
        self.slots: list[tf.Variable] = []
        if comm.size > 1:
            set_flat(self.parameters, comm.broadcast(get_flat(self.parameters)))

    def step(self, state: Any, g: tf.Tensor, lr: tf.Tensor) -> Any:
        """The state after one step down the gradient g [P]."""
        raise NotImplementedError

    def clip(self, g: tf.Tensor) -> tf.Tensor:
        """g [P], scaled down to the Euclidean norm `max_grad_norm` if it is longer."""
        limit = self.max_grad_norm
        return g if limit is None else g * (limit / tf.maximum(tf.norm(g), limit))

    def state(self) -> Any:
        """The present parameters and moments."""
        return self.State(flatten(self.parameters), *(slot.read_value() for slot in self.slots))

    def average(self, vector: tf.Tensor) -> tf.Tensor:
        """The mean of a vector over ranks, inside a compiled function: one Allreduce. Not inside XLA."""
        if self.comm.size == 1:
            return vector
        averaged = tf.numpy_function(lambda x: self.comm.mean(x.copy()), [vector], vector.dtype)
        return tf.ensure_shape(averaged, vector.shape)

    def assign(self, state: Any) -> None:
        """Writes a state back to the variables."""
        for variable, part in zip(self.parameters, unflatten(state[0], self.parameters), strict=True):
            variable.assign(part)
        for slot, value in zip(self.slots, state[1:], strict=True):
            slot.assign(value)

    def check_synced(self) -> None:
        """Raises RuntimeError on every rank unless the parameters are bitwise equal on all of them."""
        if self.comm.size > 1:
            self.comm.check_synced(get_flat(self.parameters))
