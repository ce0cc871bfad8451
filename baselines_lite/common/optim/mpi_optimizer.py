"""First-order optimizers whose gradient is averaged over ranks.

Every rank applies the same averaged gradient to the same parameters, so that parameters stay bitwise equal, which
`Experiment.log` checks. A compiled update takes a gradient, calls `average` and then `apply`, which changes the
variables in place.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from baselines_lite.common.networks.flat import flatten, get_flat, set_flat, unflatten
from baselines_lite.common.networks.parameters import LARGE
from baselines_lite.common.system.mpi import Comm
from baselines_lite.common.system.state import Stateful

Gradient = list[tf.Tensor]  # one tensor for each variable of an optimizer, of its shape


class MpiOptimizer(Stateful):
    """What MpiAdam and MpiRmsProp share. Rank 0 first gives its parameters to all ranks."""

    BELONG = ("variables",)

    def __init__(self, variables: Sequence[tf.Variable], comm: Comm, max_grad_norm: float | None) -> None:
        self.variables, self.comm, self.max_grad_norm = list(variables), comm, max_grad_norm
        self.dtype = self.variables[0].dtype
        if comm.size > 1:
            set_flat(self.variables, comm.broadcast(get_flat(self.variables)))

    def slots(self, value: float) -> list[tf.Variable]:
        """A variable beside each of `variables`, of its shape, filled with a number."""
        return [tf.Variable(tf.fill(v.shape, tf.constant(value, v.dtype)), trainable=False) for v in self.variables]

    def gradient(self, tape: tf.GradientTape, loss: tf.Tensor) -> Gradient:
        """d loss / d variables; zeros where the loss does not depend on one."""
        return tape.gradient(loss, self.variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    def average(self, g: Gradient, figures: tf.Tensor) -> tuple[Gradient, tf.Tensor]:
        """Means over ranks of a gradient and of figures [k], inside a compiled function, not inside XLA.

        One Allreduce for each large tensor, one for the small ones and the figures together.
        """
        if self.comm.size == 1:
            return g, figures
        large = [i for i, x in enumerate(g) if x.shape.num_elements() >= LARGE]
        small = [i for i in range(len(g)) if i not in large]
        together = [*(g[i] for i in small), figures]
        vectors = [*(g[i] for i in large), flatten(together)]
        averaged = tf.numpy_function(lambda *arrays: [self.comm.mean(array) for array in arrays], vectors,
                                     [vector.dtype for vector in vectors])
        averaged = tf.nest.flatten(averaged)  # run eagerly, it gives a single tensor as itself
        *alone, rest = (tf.ensure_shape(x, vector.shape) for x, vector in zip(averaged, vectors, strict=True))
        *parts, figures = unflatten(rest, together)
        found = dict(zip([*large, *small], [*alone, *parts], strict=True))
        return [found[i] for i in range(len(g))], figures

    def apply(self, g: Gradient, lr: tf.Tensor | Sequence[tf.Tensor]) -> tf.Tensor:
        """One step down the gradient g, first scaled down to the Euclidean norm `max_grad_norm` if it is longer.

        With one learning rate, or one for each variable. Returns the norm that g had.
        """
        norm = tf.linalg.global_norm(g)
        if self.max_grad_norm is not None:
            scale = self.max_grad_norm / tf.maximum(norm, self.max_grad_norm)
            g = [scale * x for x in g]
        self.step(g, lr if isinstance(lr, list | tuple) else [lr] * len(g))
        return norm

    def step(self, g: Gradient, lr: Sequence[tf.Tensor]) -> None:
        """One step down the gradient g, with a learning rate for each variable."""
        raise NotImplementedError
