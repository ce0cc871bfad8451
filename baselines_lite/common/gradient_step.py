"""One step of an optimizer on one batch, its gradient averaged over ranks: what replayed batches are trained with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from baselines_lite.common.compiled import Compiled, graph
from baselines_lite.common.mpi_optimizer import MpiOptimizer


class GradientStep:
    """`optimizer`'s step down what `gradient` (theta, *inputs) -> (g, figures [k], *more) returns, compiled.

    Parameters come and go as tensors, the optimizer's state: a variable costs a compiled call 20 us. One process: XLA
    compiles all of it, if `xla`. Several: what lies on either side of the Allreduce of [g, figures]. Without `xla`
    (convolutions on a CPU): the optimizer's step only.
    """

    def __init__(self, optimizer: MpiOptimizer, gradient: Callable[..., tuple], xla: bool) -> None:
        self.optimizer, alone = optimizer, optimizer.comm.size == 1
        self._whole = Compiled(self._average_and_step, xla=alone and xla)
        self._gradient = graph(gradient, xla=not alone and xla)
        self._step = graph(optimizer.step, xla=True)

    def __call__(self, state: Any, lr: float, *inputs: Any) -> tuple:
        """(the next state; figures averaged over ranks, with the norm of the averaged gradient; *more)."""
        return self._whole(state, tf.constant(lr, self.optimizer.dtype), *inputs)

    def _average_and_step(self, state: Any, lr: tf.Tensor, *inputs: Any) -> tuple:
        g, figures, *more = self._gradient(state.theta, *inputs)
        g, figures = self.optimizer.average(g, figures)
        return self._step(state, g, lr), tf.concat([figures, [tf.linalg.global_norm(g)]], axis=0), *more
