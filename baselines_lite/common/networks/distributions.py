"""Action distributions: thin values over tensors. Sums run over the action's components.

`make_pd(action_space)` gives the space's `PdType`: how wide the policy's head must be, how head outputs become a
distribution, and how NumPy draws an action from the same outputs and the same noise. Formulas twice differentiable, so
that Fisher-vector products can be taken of `kl`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
import tensorflow as tf

from baselines_lite.common.system.errors import UserError

LOG_2PI = math.log(2 * math.pi)


class Pd(Protocol):
    """A batch of distributions, one per row [B]."""

    def logp(self, actions: tf.Tensor) -> tf.Tensor:
        """Log-probability (density) of one action per row: [B]."""

    def entropy(self) -> tf.Tensor:
        """Entropy in nats: [B]."""

    def kl(self, other: Any) -> tf.Tensor:
        """KL(self || other) in nats: [B]."""

    def mode(self) -> tf.Tensor:
        """The most probable action per row."""

    def sample(self, noise: tf.Tensor) -> tf.Tensor:
        """One action per row, a deterministic function of the noise that `PdType.noise` draws."""


class Categorical:
    """Softmax over logits [B, K]; actions are integers [B] in 0..K-1."""

    def __init__(self, logits: tf.Tensor) -> None:
        self.logits = logits

    @property
    def log_probs(self) -> tf.Tensor:
        """Log-probabilities [B, K]. Through log_softmax, whose second derivative exists and is finite."""
        return tf.nn.log_softmax(self.logits)

    def logp(self, actions: tf.Tensor) -> tf.Tensor:
        # One-hot rather than gather: faster inside XLA, and its gradient needs no scatter.
        one_hot = tf.one_hot(actions, self.logits.shape[-1], dtype=self.logits.dtype)
        return tf.reduce_sum(one_hot * self.log_probs, axis=-1)

    def entropy(self) -> tf.Tensor:
        log_probs = self.log_probs
        return -tf.reduce_sum(tf.exp(log_probs) * log_probs, axis=-1)

    def kl(self, other: Categorical) -> tf.Tensor:
        log_probs = self.log_probs
        return tf.reduce_sum(tf.exp(log_probs) * (log_probs - other.log_probs), axis=-1)

    def mode(self) -> tf.Tensor:
        return tf.argmax(self.logits, axis=-1)

    def sample(self, noise: tf.Tensor) -> tf.Tensor:
        return tf.argmax(self.logits + noise, axis=-1)  # the Gumbel-max trick


class MultiCategorical:
    """Independent softmaxes over logits [B, K1 + K2 + ...]; actions are integers [B, k]."""

    def __init__(self, logits: tf.Tensor, counts: Sequence[int]) -> None:
        self.parts = [Categorical(part) for part in tf.split(logits, list(counts), axis=-1)]

    def logp(self, actions: tf.Tensor) -> tf.Tensor:
        return tf.add_n([part.logp(actions[:, i]) for i, part in enumerate(self.parts)])

    def entropy(self) -> tf.Tensor:
        return tf.add_n([part.entropy() for part in self.parts])

    def kl(self, other: MultiCategorical) -> tf.Tensor:
        return tf.add_n([mine.kl(theirs) for mine, theirs in zip(self.parts, other.parts, strict=True)])

    def mode(self) -> tf.Tensor:
        return tf.stack([part.mode() for part in self.parts], axis=-1)

    def sample(self, noise: tf.Tensor) -> tf.Tensor:
        noises = tf.split(noise, [part.logits.shape[-1] for part in self.parts], axis=-1)
        return tf.stack([part.sample(n) for part, n in zip(self.parts, noises, strict=True)], axis=-1)


class Bernoulli:
    """Independent coins with logits [B, k]; actions are 0 or 1 [B, k]."""

    def __init__(self, logits: tf.Tensor) -> None:
        self.logits = logits

    def _cross_entropy(self, probs: tf.Tensor) -> tf.Tensor:
        """-E_p log q [B], for coins p of the given probabilities of 1."""
        return tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(labels=probs, logits=self.logits), axis=-1)

    def logp(self, actions: tf.Tensor) -> tf.Tensor:
        return -self._cross_entropy(tf.cast(actions, self.logits.dtype))

    def entropy(self) -> tf.Tensor:
        return self._cross_entropy(tf.sigmoid(self.logits))

    def kl(self, other: Bernoulli) -> tf.Tensor:
        return other._cross_entropy(tf.sigmoid(self.logits)) - self.entropy()

    def mode(self) -> tf.Tensor:
        return tf.cast(self.logits > 0, tf.int8)

    def sample(self, noise: tf.Tensor) -> tf.Tensor:
        return tf.cast(self.logits + noise > 0, tf.int8)  # noise is logistic


class DiagGaussian:
    """Independent normals with means [B, d] and log standard deviations [d] or [B, d]; actions [B, d], unbounded."""

    def __init__(self, mean: tf.Tensor, logstd: tf.Tensor) -> None:
        self.mean, self.logstd = mean, tf.broadcast_to(logstd, tf.shape(mean))

    def logp(self, actions: tf.Tensor) -> tf.Tensor:
        z = (actions - self.mean) * tf.exp(-self.logstd)
        return -tf.reduce_sum(0.5 * tf.square(z) + self.logstd + 0.5 * LOG_2PI, axis=-1)

    def entropy(self) -> tf.Tensor:
        return tf.reduce_sum(self.logstd + 0.5 * (LOG_2PI + 1), axis=-1)

    def kl(self, other: DiagGaussian) -> tf.Tensor:
        gap = tf.square(self.mean - other.mean) * tf.exp(-2 * other.logstd)
        log_ratio = self.logstd - other.logstd
        return tf.reduce_sum(0.5 * (tf.exp(2 * log_ratio) + gap - 1) - log_ratio, axis=-1)

    def mode(self) -> tf.Tensor:
        return self.mean

    def sample(self, noise: tf.Tensor) -> tf.Tensor:
        return self.mean + tf.exp(self.logstd) * noise


class CategoricalType:
    """Discrete(n), also with a start other than 0: the distribution works on 0..n-1."""

    has_logstd = False

    def __init__(self, space: gym.spaces.Discrete) -> None:
        self.head_size, self._start, self._dtype = int(space.n), int(space.start), space.dtype
        self.action_shape: tuple[int, ...] = ()
        self.action_dtype = np.int64

    def pd(self, head: tf.Tensor, logstd: None = None) -> Categorical:
        """The distribution of head outputs [B, n]."""
        return Categorical(head)

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Gumbel noise [*shape, n], float32."""
        return rng.gumbel(size=(*shape, self.head_size)).astype(np.float32)

    def sample_numpy(self, head: np.ndarray, logstd: None, noise: np.ndarray | None) -> np.ndarray:
        """The action of `pd(head).sample(noise)`, or the mode without noise; in NumPy."""
        return (head if noise is None else head + noise).argmax(axis=-1)

    def to_env(self, actions: np.ndarray) -> np.ndarray:
        """What the environment is given for the policy's actions: of the space's type."""
        return (actions + self._start if self._start else actions).astype(self._dtype, copy=False)


class MultiCategoricalType:
    """MultiDiscrete of any shape, flattened; distributions work on 0..n-1, whatever the start."""

    has_logstd = False

    def __init__(self, space: gym.spaces.MultiDiscrete) -> None:
        self._counts, self._dtype = space.nvec.ravel().tolist(), space.dtype
        self._start = space.start.astype(np.int64)  # NumPy adds int64 and uint64 as float64
        self.head_size = sum(self._counts)
        self.action_shape = (len(self._counts),)
        self.action_dtype = np.int64

    def pd(self, head: tf.Tensor, logstd: None = None) -> MultiCategorical:
        """The distribution of head outputs [B, sum of the counts]."""
        return MultiCategorical(head, self._counts)

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Gumbel noise [*shape, sum of the counts], float32."""
        return rng.gumbel(size=(*shape, self.head_size)).astype(np.float32)

    def sample_numpy(self, head: np.ndarray, logstd: None, noise: np.ndarray | None) -> np.ndarray:
        """The action of `pd(head).sample(noise)`, or the mode without noise; in NumPy."""
        scores = head if noise is None else head + noise
        parts = np.split(scores, np.cumsum(self._counts)[:-1], axis=-1)
        return np.stack([part.argmax(axis=-1) for part in parts], axis=-1)

    def to_env(self, actions: np.ndarray) -> np.ndarray:
        """What the environment is given for the policy's actions [N, k]: of the space's type."""
        return (actions.reshape(len(actions), *self._start.shape) + self._start).astype(self._dtype, copy=False)


class BernoulliType:
    """MultiBinary of any shape, flattened."""

    has_logstd = False

    def __init__(self, space: gym.spaces.MultiBinary) -> None:
        self._shape = space.shape
        self.head_size = int(np.prod(space.shape))
        self.action_shape = (self.head_size,)
        self.action_dtype = np.int8

    def pd(self, head: tf.Tensor, logstd: None = None) -> Bernoulli:
        """The distribution of head outputs [B, k]."""
        return Bernoulli(head)

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Logistic noise [*shape, k], float32."""
        return rng.logistic(size=(*shape, self.head_size)).astype(np.float32)

    def sample_numpy(self, head: np.ndarray, logstd: None, noise: np.ndarray | None) -> np.ndarray:
        """The action of `pd(head).sample(noise)`, or the mode without noise; in NumPy."""
        return ((head if noise is None else head + noise) > 0).astype(np.int8)

    def to_env(self, actions: np.ndarray) -> np.ndarray:
        """What the environment is given for the policy's actions [N, k]."""
        return actions.reshape(len(actions), *self._shape)


class DiagGaussianType:
    """Box of any shape, flattened: independent normals with a free, state-independent log standard deviation.

    The environment receives the action clipped to the box (bounds may be infinite); with `scale`, components bounded on
    both sides are first brought from [-1, 1] to their bounds. Log-probabilities stay those of the action as drawn.
    """

    has_logstd = True

    def __init__(self, space: gym.spaces.Box, scale: bool = False) -> None:
        self.head_size = int(np.prod(space.shape, dtype=int))
        self.action_shape = (self.head_size,)
        self.action_dtype = np.float32
        self._shape, self._low, self._high = space.shape, space.low.ravel(), space.high.ravel()
        self._scale = scale
        if scale:
            bounded = np.isfinite(self._low) & np.isfinite(self._high)
            low, high = np.where(bounded, self._low, -1) / 2, np.where(bounded, self._high, 1) / 2
            self._reach = (high - low).astype(space.dtype)  # of halves: the difference is finite
            self._centre = (high + low).astype(space.dtype)

    def pd(self, head: tf.Tensor, logstd: tf.Tensor) -> DiagGaussian:
        """The distribution of means [B, d] and log standard deviations [d]."""
        return DiagGaussian(head, logstd)

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Standard normal noise [*shape, d], float32."""
        return rng.standard_normal((*shape, self.head_size), np.float32)

    def sample_numpy(self, head: np.ndarray, logstd: np.ndarray, noise: np.ndarray | None) -> np.ndarray:
        """The action of `pd(head, logstd).sample(noise)`, or the mode without noise; in NumPy."""
        return head if noise is None else head + np.exp(logstd) * noise

    def to_env(self, actions: np.ndarray) -> np.ndarray:
        """The actions [N, d], scaled if need be, clipped to the box and in its shape and type."""
        if self._scale:
            actions = self._centre + self._reach * actions
        clipped = np.minimum(np.maximum(actions, self._low), self._high).astype(self._low.dtype, copy=False)
        return clipped if len(self._shape) == 1 else clipped.reshape(len(actions), *self._shape)


PdType = CategoricalType | MultiCategoricalType | BernoulliType | DiagGaussianType

SUPPORTED = "Discrete, MultiDiscrete, MultiBinary and Box of floating-point numbers"


def is_far_from_unit(space: gym.Space) -> bool:
    """Whether a Box has a component bounded on both sides whose bounds are far from -1 and 1: by a factor over 3."""
    if not isinstance(space, gym.spaces.Box):
        return False
    bounds = np.stack([-space.low, space.high])
    near = (bounds >= 1 / 3) & (bounds <= 3)  # as MuJoCo's are, where published results clip
    return bool((np.isfinite(bounds).all(axis=0) & ~near.all(axis=0)).any())


def make_pd(action_space: gym.Space, scale: bool = False) -> PdType:
    """The distribution type for an action space. Raises UserError for a space that is not supported.

    `scale` is for a Box; see DiagGaussianType.
    """
    kinds = {gym.spaces.Discrete: CategoricalType, gym.spaces.MultiDiscrete: MultiCategoricalType,
             gym.spaces.MultiBinary: BernoulliType, gym.spaces.Box: lambda box: DiagGaussianType(box, scale)}
    integers = isinstance(action_space, gym.spaces.Box) and not np.issubdtype(action_space.dtype, np.floating)
    if 0 in (action_space.shape or ()):
        raise UserError(f"the action space {action_space} is empty, which is not supported")
    if type(action_space) not in kinds or integers:
        raise UserError(f"the action space {action_space} is not supported; supported are {SUPPORTED}")
    return kinds[type(action_space)](action_space)
