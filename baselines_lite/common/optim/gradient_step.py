"""One step of an optimizer on one batch, its gradient averaged over ranks: whole rollouts, and what was replayed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from baselines_lite.common.optim.mpi_optimizer import MpiOptimizer
from baselines_lite.common.system.compiled import Compiled, graph


class GradientStep:
    """`optimizer`'s step down what `gradient` (*inputs) -> (g, figures [k], *more) returns, compiled.

    One process: XLA compiles all of it, if `xla`. Several: the gradient. Without `xla` (convolutions): nothing.
    """

    def __init__(self, optimizer: MpiOptimizer, gradient: Callable[..., tuple], xla: bool) -> None:
        self.optimizer, alone = optimizer, optimizer.comm.size == 1
        self._whole = Compiled(self._average_and_step, xla=alone and xla)
        self._gradient = graph(gradient, xla=not alone and xla)

    def __call__(self, lr: float, *inputs: Any) -> tuple:
        """Takes a step; (figures averaged over ranks, with the norm of the averaged gradient; *more)."""
        return self._whole(tf.constant(np.asarray(lr), self.optimizer.dtype), *inputs)  # TF keeps each float for ever

    def _average_and_step(self, lr: tf.Tensor, *inputs: Any) -> tuple:
        g, figures, *more = self._gradient(*inputs)
        g, figures = self.optimizer.average(g, figures)
        norm = self.optimizer.apply(g, lr)
        return tf.concat([figures, [norm]], axis=0), *more
