"""First-order optimizers whose gradient is averaged over ranks.

Every rank applies the same averaged gradient to the same parameters, so that parameters stay bitwise equal, which
`Experiment.log` checks. An update takes `state()`, carries it through its compiled steps (`average`, then `step`), and
hands it to `assign`: tensors are far cheaper than variables, inside a compiled function and on the way into it.
Parameters, gradients and moments are lists of vectors; see flat.Parts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from baselines_lite.common.flat import Parts, Vectors, get_flat, set_flat
from baselines_lite.common.mpi import Comm
from baselines_lite.common.policy import Policy


class MpiOptimizer:
    """What MpiAdam and MpiRmsProp share. Rank 0 first gives its parameters to all ranks.

    The variables hold the parameters, unless a policy follows: see `lead`.
    """

    def __init__(self, variables: Sequence[tf.Variable], comm: Comm, max_grad_norm: float | None) -> None:
        self.parameters, self.comm, self.max_grad_norm = list(variables), comm, max_grad_norm
        self.parts = Parts(self.parameters)
        self.dtype = self.parameters[0].dtype
        if comm.size > 1:
            set_flat(self.parameters, comm.broadcast(get_flat(self.parameters)))
        self._state = self.initial(self.parts.read())
        self._hand_over: Callable[[Vectors], None] | None = None

    def lead(self, policy: Policy) -> None:
        """From now on this holds the parameters, all that the policy has, and the policy follows: see Policy.follow.

        It saves reading and writing the variables, which takes longer than a small update. Values that are assigned to
        a variable by hand are lost.
        """
        self._hand_over = policy.follow(self.parts)

    def initial(self, theta: Vectors) -> Any:
        """The state before the first step: a NamedTuple whose first field is theta, the parameters."""
        raise NotImplementedError

    def step(self, state: Any, g: Vectors, lr: tf.Tensor | Vectors) -> Any:
        """The state after one step down the gradient g, with one learning rate or one for each element."""
        raise NotImplementedError

    def clip(self, g: Vectors) -> Vectors:
        """g, scaled down to the Euclidean norm `max_grad_norm` if it is longer."""
        limit = self.max_grad_norm
        if limit is None:
            return g
        scale = limit / tf.maximum(tf.linalg.global_norm(g), limit)
        return [part * scale for part in g]

    def state(self) -> Any:
        """The present parameters and moments."""
        return self._state if self._hand_over else self._state._replace(theta=self.parts.read())

    def average(self, g: Vectors, figures: tf.Tensor) -> tuple[Vectors, tf.Tensor]:
        """Means over ranks of a gradient and of figures [k], inside a compiled function, not inside XLA.

        One Allreduce for each vector, the figures with the last: to join large ones would cost more.
        """
        if self.comm.size == 1:
            return g, figures
        vectors = [*g[:-1], tf.concat([g[-1], figures], axis=0)]
        averaged = tf.numpy_function(lambda *arrays: [self.comm.mean(array) for array in arrays], vectors,
                                     [vector.dtype for vector in vectors])
        *large, last = (tf.ensure_shape(x, vector.shape) for x, vector in zip(averaged, vectors, strict=True))
        return [*large, last[: self.parts.sizes[-1]]], last[self.parts.sizes[-1] :]

    def assign(self, state: Any) -> None:
        """Makes a state the present one, and hands its parameters to the variables. Not inside compiled functions."""
        self._state = state
        (self._hand_over or self.parts.write)(state.theta)
