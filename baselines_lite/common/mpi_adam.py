"""Adam (Kingma and Ba 2015, 1412.6980), its gradient averaged over ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from baselines_lite.common.flat import Vectors
from baselines_lite.common.mpi import Comm
from baselines_lite.common.mpi_optimizer import MpiOptimizer


class AdamState(NamedTuple):
    """Parameters theta, moments m and v, and the number of steps taken t []."""

    theta: Vectors
    m: Vectors
    v: Vectors
    t: tf.Tensor


class MpiAdam(MpiOptimizer):
    """Adam over `variables`; see mpi_optimizer for how it is used."""

    def __init__(self, variables: Sequence[tf.Variable], comm: Comm, *, beta1: float = 0.9, beta2: float = 0.999,
                 epsilon: float = 1e-8, max_grad_norm: float | None = None) -> None:
        super().__init__(variables, comm, max_grad_norm)
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon

    def initial(self, theta: Vectors) -> AdamState:
        zeros = [tf.zeros_like(part) for part in theta]
        return AdamState(theta, zeros, zeros, tf.zeros((), self.dtype))

    def step(self, state: AdamState, g: Vectors, lr: tf.Tensor | Vectors) -> AdamState:
        """One step down the gradient g: theta - lr sqrt(1 - beta2^t) / (1 - beta1^t) m / (sqrt(v) + epsilon).

        The efficient form at the end of the paper's section 2, epsilon outside the root, as TensorFlow 1 and Baselines
        have it.
        """
        t = state.t + 1.0
        # expm1 keeps 1 - beta^t exact for small t in float32.
        correction = tf.sqrt(-tf.math.expm1(t * np.log(self.beta2))) / -tf.math.expm1(t * np.log(self.beta1))
        rates = lr if isinstance(lr, list) else [lr] * len(g)
        theta, m, v = [], [], []
        for p, g_p, m_p, v_p, rate in zip(state.theta, self.clip(g), state.m, state.v, rates, strict=True):
            m.append(self.beta1 * m_p + (1 - self.beta1) * g_p)
            v.append(self.beta2 * v_p + (1 - self.beta2) * tf.square(g_p))
            theta.append(p - rate * correction * m[-1] / (tf.sqrt(v[-1]) + self.epsilon))
        return AdamState(theta, m, v, t)
