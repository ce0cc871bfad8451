"""What collecting gives: [T, N] arrays, and the one place where they become [T * N] samples or sequences."""

from __future__ import annotations

import dataclasses

import numpy as np

from baselines_lite.common.envs.episode_stats import Episode


@dataclasses.dataclass
class Rollout:
    """T steps of N environments, time-major. T * N samples in all."""

    obs: np.ndarray  # [T, N, ...] features: see observations.Encoder
    actions: np.ndarray  # [T, N, ...] as the policy drew them
    rewards: np.ndarray  # [T, N] as trained on: scaled, normalised
    terminated: np.ndarray  # [T, N] the transition led into a terminal state
    dones: np.ndarray  # [T, N] the transition ended its episode: terminated or truncated
    values: np.ndarray  # [T, N] V(s_t); see Collector's `values`
    next_values: np.ndarray  # [T, N] V of the state that followed, before any reset
    heads: np.ndarray  # [T, N, n] what the distributions at s_t were made of: see policy.logp
    episodes: list[Episode]  # this rank's episodes that ended here: raw returns
    time_env: float  # seconds spent in the environments
    time_act: float  # seconds spent on acting and everything else here, collectives apart
    firsts: np.ndarray | None = None  # [T, N] s_t is the first of its episode, for a recurrent policy
    states: np.ndarray | None = None  # [T, N, S] its memory before step t
    next_obs: np.ndarray | None = None  # [T, N, ...] features of the state that followed, before any reset
    next_states: np.ndarray | None = None  # [T, N, S] the memory there


def flatten(array: np.ndarray) -> np.ndarray:
    """[T, N, ...] -> [T * N, ...]: sample t * N + n is step t of environment n."""
    return array.reshape(-1, *array.shape[2:])


def sequences(array: np.ndarray, length: int) -> np.ndarray:
    """[T, N, ...] -> [T / length * N, length, ...]: sequence k * N + n is steps k * length and on of environment n."""
    T, N, *rest = array.shape
    return array.reshape(T // length, length, N, *rest).swapaxes(1, 2).reshape(-1, length, *rest)
