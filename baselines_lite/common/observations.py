"""Observation spaces as feature vectors [N, d], the networks' input."""

from __future__ import annotations

import gymnasium as gym
import numpy as np

from baselines_lite.common.errors import UserError


class BoxEncoder:
    """Box of numbers: flattened. Its features can be normalised."""

    normalizable = True

    def __init__(self, space: gym.spaces.Box) -> None:
        self.size = int(np.prod(space.shape))
        self.dtype = space.dtype

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        """Features [N, d] of observations [N, *shape]; a view where possible."""
        return obs.reshape(len(obs), self.size)


class DiscreteEncoder:
    """Discrete(n): one-hot, never normalised."""

    normalizable = False

    def __init__(self, space: gym.spaces.Discrete) -> None:
        self.size, self._start = int(space.n), int(space.start)
        self.dtype = np.float32
        self._one_hot = np.eye(self.size, dtype=np.float32)

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        """Features [N, n] of observations [N]."""
        return self._one_hot[obs - self._start]


Encoder = BoxEncoder | DiscreteEncoder


def make_encoder(space: gym.Space) -> Encoder:
    """The encoder of an observation space. Raises UserError for a space that is not supported."""
    if isinstance(space, gym.spaces.Discrete):
        return DiscreteEncoder(space)
    if isinstance(space, gym.spaces.Box):
        if len(space.shape) == 3 and space.dtype == np.uint8:
            raise UserError(f"image observations {space.shape} are not supported yet: they need a convolution")
        if np.prod(space.shape) > 0:
            return BoxEncoder(space)
    raise UserError(f"the observation space {space} is not supported (yet): use a Box of numbers or Discrete")
