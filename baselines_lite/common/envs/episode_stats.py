"""Raw returns and lengths of whole episodes, over all environments and ranks."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from baselines_lite.common.system.state import Stateful

WHOLE_EPISODE_OVER = "whole_episode_over"  # key of a step's infos; see collector.Collector


class Episode(NamedTuple):
    """A finished episode: its raw undiscounted return, its length in steps, and its end.

    That is given in seconds of wall clock, and as the step of its update, which decides the order.
    """

    r: float
    l: int  # noqa: E741  (the column's name in monitor.csv)
    t: float
    step: int


def in_order(per_rank: Iterable[list[Episode]]) -> list[Episode]:
    """The ranks' episodes of one update as one list: by step, then rank, then environment.

    Were they joined rank after rank, those of the last ranks would push the others out of the window.
    """
    return sorted(chain.from_iterable(per_rank), key=lambda episode: episode.step)  # stable


class EpisodeTracker(Stateful):
    """Turns one rank's raw rewards, of whole rollouts or single steps, into finished episodes.

    First episodes of environments that are `late` [N], whose time limits come early, do not count if these end them.
    """

    STATE = ("_returns", "_lengths", "_late")

    def __init__(self, num_env: int, late: np.ndarray | None = None) -> None:
        self._returns = np.zeros(num_env)
        self._lengths = np.zeros(num_env, np.int64)
        self._late = np.zeros(num_env, bool) if late is None else late.copy()

    def finished(self, rewards: np.ndarray, dones: np.ndarray, cut: np.ndarray, start: float, end: float
                 ) -> list[Episode]:
        """The episodes that ended in a rollout of raw rewards [T, N], by step, then environment.

        `cut` [T, N]: by a time limit. The rollout lasted from `start` to `end` seconds; an episode's own time is
        interpolated between them.
        """
        T = len(rewards)
        episodes = []
        begin = np.zeros(len(self._returns), np.int64)  # first step of each environment's current episode
        for t, n in zip(*np.nonzero(dones), strict=True):
            total = self._returns[n] + rewards[begin[n] : t + 1, n].sum(dtype=np.float64)
            length = self._lengths[n] + t + 1 - begin[n]
            if not (self._late[n] and cut[t, n]):
                episodes.append(Episode(float(total), int(length), start + (end - start) * (t + 1) / T, int(t)))
            self._returns[n], self._lengths[n], self._late[n], begin[n] = 0.0, 0, False, t + 1
        self._returns += rewards.sum(axis=0, dtype=np.float64, where=np.arange(T)[:, None] >= begin)
        self._lengths += T - begin
        return episodes

    def step(self, rewards: np.ndarray, dones: np.ndarray, dead: np.ndarray, now: float, step: int) -> list[Episode]:
        """The episodes that ended in step number `step` of an update, of raw rewards [N], by environment.

        `dead` steps [N] of environments do not count.
        """
        self._returns += np.where(dead, 0.0, rewards)
        self._lengths += ~dead
        ended = np.flatnonzero(dones)
        episodes = [Episode(float(self._returns[n]), int(self._lengths[n]), now, step) for n in ended]
        self._returns[ended], self._lengths[ended] = 0.0, 0
        return episodes


class EpisodeWindow(Stateful):
    """The last 100 finished episodes over all environments and ranks."""

    STATE = ("last", "count")

    SIZE = 100

    def __init__(self) -> None:
        self.last: deque[Episode] = deque(maxlen=self.SIZE)
        self.count = 0

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        self.last = deque((Episode(*episode) for episode in self.last), maxlen=self.SIZE)

    def add(self, episodes: list[Episode]) -> None:
        """Takes in finished episodes, oldest first."""
        self.last.extend(episodes)
        self.count += len(episodes)

    @property
    def full(self) -> bool:
        """Whether 100 episodes have finished."""
        return len(self.last) == self.SIZE

    @property
    def eprewmean(self) -> float | None:
        """Mean raw return; None until an episode has finished."""
        return float(np.mean([e.r for e in self.last])) if self.last else None

    @property
    def eplenmean(self) -> float | None:
        """Mean length in steps; None until an episode has finished."""
        return float(np.mean([e.l for e in self.last])) if self.last else None
