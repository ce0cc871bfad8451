"""Running normalisation of observations and rewards, the same on every rank.

Statistics are float64, frozen while a rollout is collected, and merged afterwards over time and ranks by Chan et
al.'s parallel update of (count, mean, sum of squared deviations). Only what came since the last merge is exchanged:
exchanging totals would count history once per rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from baselines_lite.common.system.mpi import Comm
from baselines_lite.common.system.state import Stateful

EPSILON = 1e-8


class Moments(Stateful):
    """Count, mean and sum of squared deviations M2 over samples of one shape, in float64."""

    STATE = ("count", "mean", "m2")

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        self.count = 0.0
        self.mean = np.zeros(shape)
        self.m2 = np.zeros(shape)

    @classmethod
    def of(cls, samples: np.ndarray) -> Moments:
        """The moments of samples [B, ...] over their first axis. B may be 0."""
        self = cls(samples.shape[1:])
        if len(samples):
            self.count = float(len(samples))
            self.mean = samples.mean(axis=0, dtype=np.float64)
            self.m2 = np.square(samples - self.mean).sum(axis=0, dtype=np.float64)
        return self

    def merge(self, other: Moments) -> None:
        """Takes in another set of samples (Chan, Golub and LeVeque 1979)."""
        count = self.count + other.count
        if other.count == 0:
            return
        delta = other.mean - self.mean
        self.mean = self.mean + delta * (other.count / count)
        self.m2 = self.m2 + other.m2 + np.square(delta) * (self.count * other.count / count)
        self.count = count

    @property
    def var(self) -> np.ndarray:
        """The population variance; 1 before any sample."""
        return self.m2 / self.count if self.count else np.ones_like(self.m2)


def merge_over_ranks(new: Moments, comm: Comm) -> Moments:
    """The moments of all ranks' samples together: identical on every rank. One collective."""
    merged = Moments(new.mean.shape)
    for other in comm.gather(new):
        merged.merge(other)
    return merged


class Normalize(Stateful):
    """Observation and reward statistics of one policy; saved with it.

    Observations become clip((x - mean) / sqrt(var + 1e-8), -clip, clip). Rewards are divided, not centred, by the
    standard deviation of their running discounted sum, and clipped likewise (OpenAI Baselines' VecNormalize). Either
    part can be off; an off part passes its input on. Where `mask` is False, elements stay as they are.
    """

    STATE = ("obs", "ret", "_running")

    def __init__(self, obs_shape: tuple[int, ...] | None = None, *, mask: np.ndarray | None = None,
                 rewards: bool = False, gamma: float = 0.99, clip: float = 10.0) -> None:
        self.obs = Moments(obs_shape) if obs_shape is not None else None
        self._mask = True if mask is None else mask
        self.ret = Moments() if rewards else None
        self.gamma, self.clip = gamma, clip
        self._running: np.ndarray | None = None  # discounted reward sums [N] of the unfinished episodes
        self.freeze()

    def freeze(self) -> None:
        """Recomputes the constants that normalising uses; call after changing the statistics by hand."""
        if self.obs is not None:
            self._scale = np.where(self._mask, 1.0 / np.sqrt(self.obs.var + EPSILON), 1.0)
            self._centre = np.where(self._mask, self.obs.mean, 0.0)

    def normalize_obs(self, obs: np.ndarray) -> np.ndarray:
        """Observations [..., *obs_shape] with the frozen statistics, as float32."""
        if self.obs is None:
            return obs
        out = np.empty(obs.shape, np.float32)
        # The subtraction is done in float64: a large mean would eat float32's digits.
        np.multiply(obs - self._centre, self._scale, out=out, casting="unsafe")
        np.minimum(out, self.clip, out=out)
        return np.maximum(out, -self.clip, out=out)

    def normalize_rewards(self, rewards: np.ndarray) -> np.ndarray:
        """Rewards of any shape with the frozen statistics, float64."""
        if self.ret is None:
            return rewards
        return np.clip(rewards / np.sqrt(self.ret.var + EPSILON), -self.clip, self.clip)

    def update(self, obs: np.ndarray, rewards: np.ndarray, dones: np.ndarray, comm: Comm) -> None:
        """Merges a rollout's raw observations [T, N, ...], rewards [T, N] and episode ends [T, N] of all ranks."""
        if self.obs is not None:
            self.update_obs(obs, comm)
        if self.ret is not None:
            self.ret.merge(merge_over_ranks(Moments.of(self._discounted_sums(rewards, dones).ravel()), comm))

    def update_obs(self, obs: np.ndarray, comm: Comm) -> None:
        """Merges raw observations [..., *obs_shape] of all ranks."""
        self.obs.merge(merge_over_ranks(Moments.of(obs.reshape(-1, *self.obs.mean.shape)), comm))
        self.freeze()

    def pass_over(self, rewards: np.ndarray, dones: np.ndarray, live: np.ndarray) -> None:
        """Carries the reward sums on over steps [K, N] that are not to count, where they are `live` [K, N]."""
        if self.ret is not None:
            for reward, done, there in zip(rewards, dones, live, strict=True):
                self._running = np.where(there, self.gamma * (1.0 - done) * (self._running + reward), self._running)

    def restart(self) -> None:
        """Forgets the unfinished episodes' reward sums: their environments were reset."""
        self._running = None

    def _discounted_sums(self, rewards: np.ndarray, dones: np.ndarray) -> np.ndarray:
        # R_t = r_t + gamma R_{t-1} within an episode: looks back, so it needs no bootstrap.
        running = np.zeros(rewards.shape[1]) if self._running is None else self._running
        sums = np.empty(rewards.shape)
        decay = self.gamma * (1.0 - dones)
        for t, reward in enumerate(rewards):
            sums[t] = running + reward
            running = decay[t] * sums[t]
        self._running = running
        return sums

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        self.freeze()

    def statistics(self) -> dict[str, np.ndarray]:
        """The statistics as named float64 arrays, for the model file."""
        parts = {"obs": self.obs, "ret": self.ret}
        return {f"{name}_{field}": np.asarray(getattr(moments, field), np.float64)
                for name, moments in parts.items() if moments is not None for field in ("count", "mean", "m2")}

    def load(self, statistics: Mapping[str, np.ndarray]) -> None:
        """Restores what `statistics` gave."""
        for name, moments in (("obs", self.obs), ("ret", self.ret)):
            if moments is not None:
                moments.count = float(statistics[f"{name}_count"])
                moments.mean, moments.m2 = (np.array(statistics[f"{name}_{field}"]) for field in ("mean", "m2"))
        self.freeze()
