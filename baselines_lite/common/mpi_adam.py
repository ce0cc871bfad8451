"""Adam (Kingma and Ba 2015, 1412.6980) on a flat parameter vector, its gradient averaged over ranks.

Every rank applies the same averaged gradient to the same parameters, so that parameters stay bitwise equal, which
`check_synced` proves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from baselines_lite.common.flat import flatten, get_flat, set_flat, unflatten
from baselines_lite.common.mpi import Comm


class AdamState(NamedTuple):
    """Parameters theta [P], moments m, v [P], and the number of steps taken t []."""

    theta: tf.Tensor
    m: tf.Tensor
    v: tf.Tensor
    t: tf.Tensor


class MpiAdam(tf.Module):
    """Adam over `variables`, which rank 0 first gives to all ranks.

    A compiled update begins with `state()`, carries it through its steps (`average`, then `step`), and ends with
    `assign(state)`: inside a loop, tensors are far cheaper than variables.
    """

    def __init__(self, variables: Sequence[tf.Variable], comm: Comm, *, beta1: float = 0.9, beta2: float = 0.999,
                 epsilon: float = 1e-8, max_grad_norm: float | None = None) -> None:
        super().__init__()
        self.parameters, self.comm = list(variables), comm
        self.beta1, self.beta2, self.epsilon, self.max_grad_norm = beta1, beta2, epsilon, max_grad_norm
        dtype = self.parameters[0].dtype
        size = sum(int(np.prod(v.shape)) for v in self.parameters)
        self.m = tf.Variable(tf.zeros(size, dtype), trainable=False, name="adam/m")
        self.v = tf.Variable(tf.zeros(size, dtype), trainable=False, name="adam/v")
        self.t = tf.Variable(tf.zeros((), dtype), trainable=False, name="adam/t")
        if comm.size > 1:
            set_flat(self.parameters, comm.broadcast(get_flat(self.parameters)))

    def state(self) -> AdamState:
        """The present parameters and moments."""
        return AdamState(flatten(self.parameters), self.m.read_value(), self.v.read_value(), self.t.read_value())

    def step(self, state: AdamState, g: tf.Tensor, lr: tf.Tensor) -> AdamState:
        """One step down the gradient g [P]: theta - lr sqrt(1 - beta2^t) / (1 - beta1^t) m / (sqrt(v) + epsilon).

        The efficient form at the end of the paper's section 2, epsilon outside the root, as TensorFlow 1 and Baselines
        have it. With `max_grad_norm`, g is first scaled down to that Euclidean norm.
        """
        if self.max_grad_norm is not None:
            g *= self.max_grad_norm / tf.maximum(tf.norm(g), self.max_grad_norm)
        t = state.t + 1.0
        m = self.beta1 * state.m + (1 - self.beta1) * g
        v = self.beta2 * state.v + (1 - self.beta2) * tf.square(g)
        # expm1 keeps 1 - beta^t exact for small t in float32.
        rate = lr * tf.sqrt(-tf.math.expm1(t * np.log(self.beta2))) / -tf.math.expm1(t * np.log(self.beta1))
        return AdamState(state.theta - rate * m / (tf.sqrt(v) + self.epsilon), m, v, t)

    def average(self, vector: tf.Tensor) -> tf.Tensor:
        """The mean of a vector over ranks, inside a compiled function: one Allreduce. Not inside XLA."""
        if self.comm.size == 1:
            return vector
        averaged = tf.numpy_function(lambda x: self.comm.mean(x.copy()), [vector], vector.dtype)
        return tf.ensure_shape(averaged, vector.shape)

    def assign(self, state: AdamState) -> None:
        """Writes a state back to the variables."""
        for variable, part in zip(self.parameters, unflatten(state.theta, self.parameters), strict=True):
            variable.assign(part)
        self.m.assign(state.m)
        self.v.assign(state.v)
        self.t.assign(state.t)

    def check_synced(self) -> None:
        """Raises RuntimeError on every rank unless the parameters are bitwise equal on all of them."""
        if self.comm.size > 1:
            self.comm.check_synced(get_flat(self.parameters))
