"""RMSProp (Hinton, lecture 6e) as TensorFlow 1 had it, its gradient averaged over ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from baselines_lite.common.flat import Vectors
from baselines_lite.common.mpi import Comm
from baselines_lite.common.mpi_optimizer import MpiOptimizer


class RmsPropState(NamedTuple):
    """Parameters theta and the running mean square ms of the gradient."""

    theta: Vectors
    ms: Vectors


class MpiRmsProp(MpiOptimizer):
    """RMSProp over `variables`; see mpi_optimizer for how it is used.

    The mean square starts at 1, not 0, and epsilon stands inside the root: with that, the first steps are small, on
    which A2C's published results rest (other libraries start at 0, and had to add this one).
    """

    def __init__(self, variables: Sequence[tf.Variable], comm: Comm, *, decay: float = 0.99, epsilon: float = 1e-5,
                 max_grad_norm: float | None = None) -> None:
        super().__init__(variables, comm, max_grad_norm)
        self.decay, self.epsilon = decay, epsilon

    def initial(self, theta: Vectors) -> RmsPropState:
        return RmsPropState(theta, [tf.ones_like(part) for part in theta])

    def step(self, state: RmsPropState, g: Vectors, lr: tf.Tensor | Vectors) -> RmsPropState:
        """One step down the gradient g: ms' = decay ms + (1 - decay) g^2; theta - lr g / sqrt(ms' + epsilon)."""
        rates = lr if isinstance(lr, list) else [lr] * len(g)
        theta, ms = [], []
        for p, g_p, ms_p, rate in zip(state.theta, self.clip(g), state.ms, rates, strict=True):
            ms.append(self.decay * ms_p + (1 - self.decay) * tf.square(g_p))
            theta.append(p - rate * g_p / tf.sqrt(ms[-1] + self.epsilon))
        return RmsPropState(theta, ms)
