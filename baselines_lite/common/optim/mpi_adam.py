"""Adam (Kingma and Ba 2015, 1412.6980), its gradient averaged over ranks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from baselines_lite.common.optim.mpi_optimizer import Gradient, MpiOptimizer
from baselines_lite.common.system.mpi import Comm


class MpiAdam(MpiOptimizer):
    """Adam over `variables`, with moments m and v, and the number of steps taken t []; see mpi_optimizer."""

    STATE = ("m", "v", "t")

    def __init__(self, variables: Sequence[tf.Variable], comm: Comm, *, beta1: float = 0.9, beta2: float = 0.999,
                 epsilon: float = 1e-8, max_grad_norm: float | None = None) -> None:
        super().__init__(variables, comm, max_grad_norm)
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon
        self.m, self.v = self.slots(0.0), self.slots(0.0)
        self.t = tf.Variable(0.0, dtype=self.dtype, trainable=False)

    def step(self, g: Gradient, lr: Sequence[tf.Tensor]) -> None:
        """theta - lr sqrt(1 - beta2^t) / (1 - beta1^t) m / (sqrt(v) + epsilon).

        The efficient form at the end of the paper's section 2, epsilon outside the root, as TensorFlow 1 and Baselines
        have it.
        """
        t = self.t.assign_add(1.0)
        # expm1 keeps 1 - beta^t exact for small t in float32; TensorFlow's operation is told that beta^t is 0.
        correction = tf.sqrt(-tf.math.expm1(t * np.log(self.beta2))) / -tf.math.expm1(t * np.log(self.beta1))
        zero, beta1, beta2, epsilon = (tf.constant(x, self.dtype) for x in (0.0, self.beta1, self.beta2, self.epsilon))
        for variable, m, v, x, rate in zip(self.variables, self.m, self.v, g, lr, strict=True):
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle, m=m.handle, v=v.handle, beta1_power=zero, beta2_power=zero, lr=rate * correction,
                beta1=beta1, beta2=beta2, epsilon=epsilon, grad=x)
