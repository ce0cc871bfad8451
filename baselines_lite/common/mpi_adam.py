"""Adam (Kingma and Ba 2015, 1412.6980) on a flat parameter vector, its gradient averaged over ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from baselines_lite.common.mpi import Comm
from baselines_lite.common.mpi_optimizer import MpiOptimizer


class AdamState(NamedTuple):
    """Parameters theta [P], moments m, v [P], and the number of steps taken t []."""

    theta: tf.Tensor
    m: tf.Tensor
    v: tf.Tensor
    t: tf.Tensor


class MpiAdam(MpiOptimizer):
    """Adam over `variables`; see mpi_optimizer for how it is used."""

    State = AdamState

    def __init__(self, variables: Sequence[tf.Variable], comm: Comm, *, beta1: float = 0.9, beta2: float = 0.999,
                 epsilon: float = 1e-8, max_grad_norm: float | None = None) -> None:
        super().__init__(variables, comm, max_grad_norm)
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon
        self.m = tf.Variable(tf.zeros(self.size, self.dtype), trainable=False, name="adam/m")
        self.v = tf.Variable(tf.zeros(self.size, self.dtype), trainable=False, name="adam/v")
        self.t = tf.Variable(tf.zeros((), self.dtype), trainable=False, name="adam/t")
        self.slots = [self.m, self.v, self.t]

    def step(self, state: AdamState, g: tf.Tensor, lr: tf.Tensor) -> AdamState:
        """One step down the gradient g [P]: theta - lr sqrt(1 - beta2^t) / (1 - beta1^t) m / (sqrt(v) + epsilon).

        The efficient form at the end of the paper's section 2, epsilon outside the root, as TensorFlow 1 and Baselines
        have it.
        """
        g = self.clip(g)
        t = state.t + 1.0
        m = self.beta1 * state.m + (1 - self.beta1) * g
        v = self.beta2 * state.v + (1 - self.beta2) * tf.square(g)
        # expm1 keeps 1 - beta^t exact for small t in float32.
        rate = lr * tf.sqrt(-tf.math.expm1(t * np.log(self.beta2))) / -tf.math.expm1(t * np.log(self.beta1))
        return AdamState(state.theta - rate * m / (tf.sqrt(v) + self.epsilon), m, v, t)
