"""Exploration by noise on the parameters instead of the actions (Plappert et al. 2018, 1706.01905)."""

from __future__ import annotations

import numpy as np

from baselines_lite.common import networks
from baselines_lite.common.flat import get_flat, set_flat
from baselines_lite.common.policy import Policy


class ParameterNoise:
    """`perturbed`, a policy like `policy`, is given its parameters plus normal noise; those of LayerNorm stay.

    The noise's deviation `std` grows or shrinks by 1% at each `adapt`, so that the two policies stay as far apart as is
    wanted (paper, section 3, eq. 3).
    """

    FACTOR = 1.01

    def __init__(self, policy: Policy, perturbed: Policy, rng: np.random.Generator, std: float) -> None:
        self.policy, self.perturbed, self.std, self._rng = policy, perturbed, std, rng
        normed = {id(v) for module in policy.submodules if isinstance(module, networks.LayerNorm)
                  for v in module.trainable_variables}
        self._mask = np.concatenate([np.full(int(np.prod(v.shape)), id(v) not in normed)
                                     for v in policy.trainable_variables])

    def perturb(self) -> None:
        """Draws new noise around the present parameters."""
        theta = get_flat(self.policy.trainable_variables)
        noise = self._rng.standard_normal(theta.size, np.float32) * (self.std * self._mask)
        set_flat(self.perturbed.trainable_variables, (theta + noise).astype(theta.dtype))

    def adapt(self, distance: float, wanted: float) -> None:
        """Moves the deviation towards where the perturbed policy's distance is the one that is wanted."""
        self.std *= self.FACTOR if distance <= wanted else 1 / self.FACTOR
