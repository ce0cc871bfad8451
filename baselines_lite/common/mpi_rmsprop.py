"""RMSProp (Hinton, lecture 6e) as TensorFlow 1 had it, on a flat vector, its gradient averaged over ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from baselines_lite.common.mpi import Comm
from baselines_lite.common.mpi_optimizer import MpiOptimizer


class RmsPropState(NamedTuple):
    """Parameters theta [P] and the running mean square ms [P] of the gradient."""

    theta: tf.Tensor
    ms: tf.Tensor


class MpiRmsProp(MpiOptimizer):
    """RMSProp over `variables`; see mpi_optimizer for how it is used.

    The mean square starts at 1, not 0, and epsilon stands inside the root: with that, the first steps are small, on
    which A2C's published results rest (other libraries start at 0, and had to add this one).
    """

    State = RmsPropState

    def __init__(self, variables: Sequence[tf.Variable], comm: Comm, *, decay: float = 0.99, epsilon: float = 1e-5,
                 max_grad_norm: float | None = None) -> None:
        super().__init__(variables, comm, max_grad_norm)
        self.decay, self.epsilon = decay, epsilon
        self.ms = tf.Variable(tf.ones(self.size, self.dtype), trainable=False, name="rmsprop/ms")
        self.slots = [self.ms]

    def step(self, state: RmsPropState, g: tf.Tensor, lr: tf.Tensor) -> RmsPropState:
        """One step down the gradient g [P]: ms' = decay ms + (1 - decay) g^2; theta - lr g / sqrt(ms' + epsilon)."""
        g = self.clip(g)
        ms = self.decay * state.ms + (1 - self.decay) * tf.square(g)
        return RmsPropState(state.theta - lr * g / tf.sqrt(ms + self.epsilon), ms)
