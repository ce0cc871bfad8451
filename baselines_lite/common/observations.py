"""Observation spaces as features, the networks' input: vectors [N, d] or pictures [N, height, width, channels].

`shape` and `dtype` are those of one observation's features as a rollout stores them.
"""

from __future__ import annotations

import gymnasium as gym
import numpy as np

from baselines_lite.common.errors import UserError


class BoxEncoder:
    """Box of numbers: flattened. Its features can be normalised."""

    normalizable = True

    def __init__(self, space: gym.spaces.Box) -> None:
        self.shape = (int(np.prod(space.shape)),)
        self.dtype = np.float32

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        """Features [N, d] of observations [N, *shape]; a view where possible."""
        return obs.reshape(len(obs), *self.shape)


class DiscreteEncoder:
    """Discrete(n): one-hot, never normalised."""

    normalizable = False

    def __init__(self, space: gym.spaces.Discrete) -> None:
        self.shape, self._start = (int(space.n),), int(space.start)
        self.dtype = np.float32
        self._one_hot = np.eye(int(space.n), dtype=np.float32)

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        """Features [N, n] of observations [N]."""
        return self._one_hot[obs - self._start]


class ImageEncoder:
    """A picture: a three-dimensional Box of uint8, channels first or last (the shorter of first and last axis).

    Its features stay uint8, channels last, as convolutions on a CPU want them.
    """

    normalizable = False
    dtype = np.uint8

    def __init__(self, space: gym.spaces.Box) -> None:
        self._channels_first = space.shape[0] < space.shape[-1]
        self.shape = (*space.shape[1:], space.shape[0]) if self._channels_first else space.shape

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        """Features [N, height, width, channels] of observations [N, *shape]."""
        if not self._channels_first:
            return obs
        features = np.empty((len(obs), *self.shape), np.uint8)
        for channel in range(self.shape[-1]):  # three times faster than a copy of the transposed array
            features[..., channel] = obs[:, channel]
        return features


Encoder = BoxEncoder | DiscreteEncoder | ImageEncoder


def make_encoder(space: gym.Space) -> Encoder:
    """The encoder of an observation space. Raises UserError for a space that is not supported."""
    if isinstance(space, gym.spaces.Discrete):
        return DiscreteEncoder(space)
    if isinstance(space, gym.spaces.Box):
        if len(space.shape) == 3 and space.dtype == np.uint8:
            return ImageEncoder(space)
        if np.prod(space.shape) > 0:
            return BoxEncoder(space)
    raise UserError(f"the observation space {space} is not supported (yet): use a Box of numbers or Discrete")
