"""Observation spaces as features, the networks' input.

    vectors [N, d]       float32: everything but pictures, side by side
    pictures [N, h, w, c] uint8, channels last: a space that is one picture, for a network with convolutions
    both [N, k]          uint8: the picture's bytes, then those of the float32 vector; networks.Beside takes them apart

Nested Dict and Tuple spaces are laid out in their own order (Gymnasium sorts a plain dict's keys), depth first. A leaf
becomes columns: Box its numbers, flattened; Discrete(n) a one-hot of n; MultiDiscrete a one-hot for each component;
MultiBinary zeros and ones. A Box of uint8, bytes, is scaled from its bounds to 0 and 1. With three dimensions it is a
picture, whose bytes a network with convolutions sees as they are, and divides by 255 itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np

from baselines_lite.common.system.errors import UserError

SUPPORTED = "Box, Discrete, MultiDiscrete, MultiBinary, and Tuple and Dict of these"


def leaves(space: gym.Space, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], gym.Space]]:
    """The simple spaces inside a space, depth first, each with the keys that lead to it."""
    if isinstance(space, gym.spaces.Dict):
        for key, inner in space.spaces.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(space, gym.spaces.Tuple):
        for i, inner in enumerate(space.spaces):
            yield from leaves(inner, (*path, i))
    else:
        yield path, space


def brief(space: gym.Space) -> str:
    """A space in a few words: of a Box without its bounds."""
    return f"Box({space.shape}, {space.dtype})" if isinstance(space, gym.spaces.Box) else str(space)


def is_picture(space: gym.Space) -> bool:
    """Whether a space holds pictures: uint8 with three dimensions."""
    return isinstance(space, gym.spaces.Box) and len(space.shape) == 3 and space.dtype == np.uint8


def to_columns(space: gym.Space) -> tuple[int, Callable[[np.ndarray], np.ndarray]]:
    """For a simple space: how many columns it takes, and the function from a batch [N, *shape] to them [N, columns]."""
    if isinstance(space, gym.spaces.Discrete):
        n, start = int(space.n), int(space.start)

        def one_hot(obs: np.ndarray) -> np.ndarray:
            columns = np.zeros((len(obs), n), np.float32)
            columns[np.arange(len(obs)), np.asarray(obs, np.int64) - start] = 1.0
            return columns

        return n, one_hot
    if isinstance(space, gym.spaces.MultiDiscrete):
        counts, start = (array.ravel().astype(np.int64) for array in (space.nvec, space.start))  # not unsigned
        first = np.concatenate([[0], np.cumsum(counts)[:-1]]) - start
        total = int(counts.sum())

        def one_hots(obs: np.ndarray) -> np.ndarray:
            columns = np.zeros((len(obs), total), np.float32)
            np.put_along_axis(columns, np.asarray(obs, np.int64).reshape(len(obs), -1) + first, 1.0, axis=1)
            return columns

        return total, one_hots
    size = int(np.prod(space.shape, dtype=int))

    def flat(obs: np.ndarray) -> np.ndarray:
        return np.asarray(obs).reshape(len(obs), size)

    if space.dtype != np.uint8 or not isinstance(space, gym.spaces.Box):
        return size, flat
    low, high = np.float32(space.low.ravel()), np.float32(space.high.ravel())
    scale = 1 / np.maximum(high - low, 1)
    return size, lambda obs: (flat(obs) - low) * scale


class Encoder:
    """Batches of observations of a space as features; see the module's docstring.

    Raises UserError for a space that is not supported, and for more than one picture where `pictures` says that the
    network has convolutions for one.
    """

    def __init__(self, space: gym.Space, pictures: bool = True) -> None:
        self._space, found = space, list(leaves(space))
        if not found:
            raise UserError(f"the observation space {space} is empty, which is not supported")
        for path, leaf in found:
            kinds = (gym.spaces.Box, gym.spaces.Discrete, gym.spaces.MultiDiscrete, gym.spaces.MultiBinary)
            where = f" (at {'/'.join(map(str, path))})" if path else ""
            if 0 in (leaf.shape or ()):
                raise UserError(f"the observation space {leaf}{where} is empty, which is not supported")
            if not isinstance(leaf, kinds):
                raise UserError(f"the observation space {leaf}{where} is not supported; supported are {SUPPORTED}")
        self._pictures = [(path, leaf) for path, leaf in found if pictures and is_picture(leaf)]
        if len(self._pictures) > 1:
            names = ", ".join("/".join(map(str, path)) for path, _ in self._pictures)
            raise UserError(f"the observation space has {len(self._pictures)} pictures ({names}); a network with "
                            "convolutions takes one. Stack them as channels, or use --network=mlp")
        self._parts, normalized, end = [], [], 0
        for path, leaf in found:
            if pictures and is_picture(leaf):
                continue
            columns, function = to_columns(leaf)
            self._parts.append((path, slice(end, end + columns), function))
            normalized += [isinstance(leaf, gym.spaces.Box) and not is_picture(leaf)] * columns
            end += columns
        self.vector_size = end
        # Which columns running statistics may normalise: numbers, not one-hots or pixels.
        self.normalized = np.array(normalized, bool)
        self.picture_shape: tuple[int, int, int] | None = None
        if self._pictures:
            shape = self._pictures[0][1].shape
            self._channels_first = shape[0] < shape[-1]
            self.picture_shape = (*shape[1:], shape[0]) if self._channels_first else shape
        pixels = int(np.prod(self.picture_shape)) if self.picture_shape else 0
        self._pixels = pixels
        self.dtype = np.uint8 if pixels else np.float32
        self.shape = ((end,) if not pixels else self.picture_shape if not end else (pixels + 4 * end,))

    @property
    def size(self) -> Any:
        """What a network's builder is told: d, (height, width, channels), or (height, width, channels, d)."""
        if self.picture_shape is None:
            return self.vector_size
        return (*self.picture_shape, self.vector_size) if self.vector_size else self.picture_shape

    def batch(self, obs: Any) -> int:
        """How many observations a batch holds."""
        path = (self._pictures or self._parts)[0][0]
        return len(at(obs, path))

    def batched(self, obs: Any) -> tuple[Any, bool]:
        """A batch of raw observations, and whether `obs` was a single one.

        Raises UserError for what is neither, and for numbers that are none of the space's: see `foreign`.
        """
        kinds, told = set(), f"an observation must be one of {brief(self._space)}, or a batch of them, [N, ...]"
        for path, leaf in leaves(self._space):
            try:
                part = np.asarray(at(obs, path))
                shape = part.shape if part.dtype.kind in "biuf" else None
            except (KeyError, IndexError, TypeError, ValueError):
                shape = None  # it lacks this part, or the part is no array
            kind = "one" if shape == leaf.shape else "batch" if shape and shape[1:] == leaf.shape else "neither"
            kinds.add(kind)
            if kind != "neither" and len(found := part[foreign(leaf, part)]):
                raise UserError(f"{told}; {found[0]}{' at ' * bool(path)}{'/'.join(map(str, path))} is in none")
        if len(kinds) > 1 or kinds == {"neither"}:
            raise UserError(told)
        return (batch_of_one(self._space, obs), True) if kinds == {"one"} else (obs, False)

    def vector(self, obs: Any) -> np.ndarray | None:
        """The columns [N, d] of a batch of raw observations, not normalised; None if there are only pictures."""
        if not self.vector_size:
            return None
        if len(self._parts) == 1:
            path, _, function = self._parts[0]
            return function(at(obs, path))
        return np.concatenate([function(at(obs, path)) for path, _, function in self._parts], axis=1)

    def features(self, obs: Any, vector: np.ndarray | None, out: np.ndarray) -> np.ndarray:
        """Writes the features of raw observations, and of their (normalised) vector, to `out` [N, *shape]."""
        if self.picture_shape is None:
            out[...] = vector
            return out
        picture = np.asarray(at(obs, self._pictures[0][0]))
        target = out if vector is None else np.empty((len(out), *self.picture_shape), np.uint8)
        if self._channels_first:
            for channel in range(target.shape[-1]):  # three times faster than a copy of the transposed array
                target[..., channel] = picture[:, channel]
        else:
            target[...] = picture
        if vector is not None:
            out[:, : self._pixels] = target.reshape(len(out), -1)
            out[:, self._pixels :] = np.ascontiguousarray(vector, np.float32).view(np.uint8)
        return out

    def numbers(self, features: np.ndarray) -> np.ndarray | None:
        """What of features [N, *shape] is no picture: float32 [N, d]; None if all is."""
        if self.picture_shape is None:
            return features
        return features[:, self._pixels :].view(np.float32) if self.vector_size else None


def foreign(space: gym.Space, numbers: np.ndarray) -> np.ndarray:
    """Which of the numbers [..., *shape] a simple space has not: those that are not finite, that its type cannot hold,
    or that are no index. A Box's bounds do not count: many environments do not keep to them.
    """
    if space.dtype.kind == "f":
        return ~np.isfinite(numbers)
    with np.errstate(invalid="ignore"):  # of what is not finite
        unlike = numbers.astype(space.dtype, copy=False) != numbers
    match space:
        case gym.spaces.Discrete():
            start, count = space.start, space.n
        case gym.spaces.MultiDiscrete():
            start, count = space.start, space.nvec
        case gym.spaces.MultiBinary():
            start, count = 0, 2
        case _:
            return unlike
    return unlike | (numbers < start) | (numbers - start >= count)


def batch_of_one(space: gym.Space, obs: Any) -> Any:
    """An observation as a batch with nothing else in it."""
    if isinstance(space, gym.spaces.Dict):
        return {key: batch_of_one(inner, obs[key]) for key, inner in space.spaces.items()}
    if isinstance(space, gym.spaces.Tuple):
        return tuple(batch_of_one(inner, part) for inner, part in zip(space.spaces, obs, strict=True))
    return np.asarray(obs)[None]


def at(tree: Any, path: tuple[Any, ...]) -> Any:
    """The part of nested dicts and tuples that a path of keys leads to."""
    for key in path:
        tree = tree[key]
    return tree
