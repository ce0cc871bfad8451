"""Exploration by noise on the parameters instead of the actions (Plappert et al. 2018, 1706.01905)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from baselines_lite.common.networks.flat import get_flat, set_flat
from baselines_lite.common.networks.layers import LayerNorm
from baselines_lite.common.policies.policy import Policy
from baselines_lite.common.system.state import Stateful


class ParameterNoise(Stateful):
    """`perturbed`, a policy like `policy`, gets its parameters plus normal noise; those of LayerNorm stay.

    The noise's deviation `std` grows or shrinks by 1% at each `adapt`, so that the two policies stay as far apart as is
    wanted (paper, section 3, eq. 3). `variables` picks those of a policy that noise is for.
    """

    STATE = ("perturbed", "std", "_rng")

    FACTOR = 1.01

    def __init__(self, policy: Policy, perturbed: Policy, rng: np.random.Generator, std: float,
                 variables: Callable[[Policy], Sequence[tf.Variable]] = lambda policy: policy.trainable_variables
                 ) -> None:
        self.perturbed, self.std, self._rng = perturbed, std, rng
        self._variables, self._of = variables, variables(policy)
        normed = {id(p) for module in policy.submodules if isinstance(module, LayerNorm)
                  for p in (module.gain, module.bias)}
        self._mask = policy.parameters.mask(self._of, lambda parameter: id(parameter) not in normed)

    def perturb(self, perturbed: Policy | None = None) -> None:
        """Draws new noise around the present parameters, for `perturbed` or for another policy like it."""
        theta = get_flat(self._of)
        noise = self._rng.standard_normal(theta.size, np.float32) * (self.std * self._mask)
        set_flat(self._variables(perturbed or self.perturbed), (theta + noise).astype(theta.dtype))

    def adapt(self, distance: Callable[[], float], wanted: float) -> None:
        """Moves the deviation towards where the distance of a newly perturbed policy is the one that is wanted."""
        self.perturb()
        self.std *= self.FACTOR if distance() <= wanted else 1 / self.FACTOR
