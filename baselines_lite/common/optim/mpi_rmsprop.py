"""RMSProp (Hinton, lecture 6e) as TensorFlow 1 had it, its gradient averaged over ranks."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from baselines_lite.common.optim.mpi_optimizer import Gradient, MpiOptimizer
from baselines_lite.common.system.mpi import Comm


class MpiRmsProp(MpiOptimizer):
    """RMSProp over `variables`, with the running mean square ms of the gradient; see mpi_optimizer.

    The mean square starts at 1, not 0, and epsilon stands inside the root: with that, the first steps are small, on
    which A2C's published results rest (other libraries start at 0, and had to add this one).
    """

    STATE = ("ms",)  # what is in the momentum counts for nothing

    def __init__(self, variables: Sequence[tf.Variable], comm: Comm, *, decay: float = 0.99, epsilon: float = 1e-5,
                 max_grad_norm: float | None = None) -> None:
        super().__init__(variables, comm, max_grad_norm)
        self.decay, self.epsilon = decay, epsilon
        self.ms, self._momentum = self.slots(1.0), self.slots(0.0)  # TensorFlow's operation has a momentum: of 0

    def step(self, g: Gradient, lr: Sequence[tf.Tensor]) -> None:
        """ms <- decay ms + (1 - decay) g^2; theta - lr g / sqrt(ms + epsilon)."""
        zero, decay, epsilon = (tf.constant(x, self.dtype) for x in (0.0, self.decay, self.epsilon))
        for variable, ms, momentum, x, rate in zip(self.variables, self.ms, self._momentum, g, lr, strict=True):
            tf.raw_ops.ResourceApplyRMSProp(
                var=variable.handle, ms=ms.handle, mom=momentum.handle, lr=rate, rho=decay, momentum=zero,
                epsilon=epsilon, grad=x)
