"""Adam (Kingma and Ba 2015, 1412.6980) on a flat gradient vector, averaged over ranks.

`apply` runs inside a compiled function; `average` is the one Allreduce between two of them. Every rank applies the same
averaged gradient to the same parameters, so that parameters stay bitwise equal, which `check_synced` proves.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from baselines_lite.common.flat import get_flat, set_flat, unflatten
from baselines_lite.common.mpi import Comm


class MpiAdam(tf.Module):
    """The optimizer's state for `variables`: moments m, v [P] and the step count.

    The step is lr sqrt(1 - beta2^t) / (1 - beta1^t) m / (sqrt(v) + epsilon): the efficient form at the end of the
    paper's section 2, with epsilon outside the root, as TensorFlow 1 and Baselines have it. With `max_grad_norm`, the
    (averaged) gradient is first scaled down to that Euclidean norm.
    """

    def __init__(self, variables: Sequence[tf.Variable], comm: Comm, *, beta1: float = 0.9, beta2: float = 0.999,
                 epsilon: float = 1e-8, max_grad_norm: float | None = None) -> None:
        super().__init__()
        self.variables_, self.comm = list(variables), comm
        self.beta1, self.beta2, self.epsilon, self.max_grad_norm = beta1, beta2, epsilon, max_grad_norm
        dtype = self.variables_[0].dtype
        size = sum(int(np.prod(v.shape)) for v in self.variables_)
        self.m = tf.Variable(tf.zeros(size, dtype), trainable=False, name="adam/m")
        self.v = tf.Variable(tf.zeros(size, dtype), trainable=False, name="adam/v")
        self.t = tf.Variable(tf.zeros((), dtype), trainable=False, name="adam/t")
        self.broadcast()

    def apply(self, g: tf.Tensor, lr: tf.Tensor) -> tf.Tensor:
        """One step down the averaged gradient g [P]; returns its norm before clipping. For compiled functions."""
        norm = tf.norm(g)
        if self.max_grad_norm is not None:
            g *= self.max_grad_norm / tf.maximum(norm, self.max_grad_norm)
        t = self.t.assign_add(1.0)
        m = self.m.assign(self.beta1 * self.m + (1 - self.beta1) * g)
        v = self.v.assign(self.beta2 * self.v + (1 - self.beta2) * tf.square(g))
        # expm1 keeps 1 - beta^t exact for small t in float32.
        rate = lr * tf.sqrt(-tf.math.expm1(t * np.log(self.beta2))) / -tf.math.expm1(t * np.log(self.beta1))
        step = rate * m / (tf.sqrt(v) + self.epsilon)
        for variable, part in zip(self.variables_, unflatten(step, self.variables_), strict=True):
            variable.assign_sub(part)
        return norm

    def average(self, g: np.ndarray) -> np.ndarray:
        """The mean of g over ranks, in place. One collective."""
        return self.comm.mean(g)

    def broadcast(self) -> None:
        """Gives every rank the parameters of rank 0."""
        if self.comm.size > 1:
            set_flat(self.variables_, self.comm.broadcast(get_flat(self.variables_)))

    def check_synced(self) -> None:
        """Raises RuntimeError on every rank unless the parameters are bitwise equal on all of them."""
        if self.comm.size > 1:
            self.comm.check_synced(get_flat(self.variables_))
