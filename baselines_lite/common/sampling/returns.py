"""Returns and advantages of rollouts: NumPy on time-major arrays [T, N].

The end of an episode is data, not a branch: `terminated` zeroes the bootstrap (nothing follows death), `dones`
(terminated or truncated) cuts the trace, and `next_values` holds V of the state that really followed, which at a
truncation is the final observation of the episode, not the first of the next.
"""

from __future__ import annotations

import numpy as np

from baselines_lite.common.sampling.rollout import Rollout
from baselines_lite.common.system.mpi import Comm


def gae(rollout: Rollout, gamma: float, lam: float) -> tuple[np.ndarray, np.ndarray]:
    """(advs, returns) of a rollout, [T, N] each; see generalized_advantages."""
    r = rollout
    return generalized_advantages(r.rewards, r.values, r.next_values, r.terminated, r.dones, gamma, lam)


def generalized_advantages(rewards: np.ndarray, values: np.ndarray, next_values: np.ndarray, terminated: np.ndarray,
                           dones: np.ndarray, gamma: float, lam: float) -> tuple[np.ndarray, np.ndarray]:
    """Generalised advantage estimation (Schulman et al. 2016, 1506.02438, eq. 16): (advs, returns), each [T, N].

    All inputs [T, N]; `dones` must be true wherever `terminated` is. With
        delta_t = r_t + gamma (1 - terminated_t) V(s'_t) - V(s_t)
        A_t     = delta_t + gamma lam (1 - done_t) A_{t+1}
    and returns = A + V. lam = 1 gives the n-step return minus V, lam = 0 the TD error. float32 inputs, float32 result;
    the recursion itself runs in float64.
    """
    bootstrap = np.where(terminated, 0.0, np.asarray(next_values, np.float64))
    advs = rewards + gamma * bootstrap - values
    decay = gamma * lam * (1.0 - dones)
    for t in range(len(advs) - 2, -1, -1):
        advs[t] += decay[t] * advs[t + 1]
    dtype = values.dtype
    return advs.astype(dtype), (advs + values).astype(dtype)


def standardize(advs: np.ndarray, comm: Comm) -> np.ndarray:
    """(advs - mean) / (deviation + 1e-8), with moments over all ranks; zeros where all are equal. Two collectives."""
    mean = comm.mean(np.array([advs.mean(dtype=np.float64)]))
    variance = comm.mean(np.array([np.square(advs - mean).mean()]))
    return ((advs - mean) / (np.sqrt(variance) + 1e-8)).astype(advs.dtype)


def minibatch_moments(advs: np.ndarray, indices: np.ndarray, comm: Comm) -> tuple[np.ndarray, np.ndarray]:
    """(mean, standard deviation + 1e-8), [count] each, of every minibatch's advantages, over `comm`'s ranks.

    `indices` [count, size] picks the minibatches from advs [B, ...]. The shuffle is known beforehand, so that two
    collectives serve all minibatches of an update.
    """
    chosen = advs[indices].astype(np.float64).reshape(len(indices), -1)
    centre = comm.mean(np.array([chosen.mean()]))  # shifted, so that the squares do not cancel
    sums = comm.mean(np.stack([(chosen - centre).mean(axis=1), np.square(chosen - centre).mean(axis=1)]))
    return sums[0] + centre, np.sqrt(np.maximum(sums[1] - np.square(sums[0]), 0.0)) + 1e-8


def explained_variance(values: np.ndarray, returns: np.ndarray) -> float:
    """1 - Var[returns - values] / Var[returns]: 1 perfect, 0 no better than a constant; NaN for constant returns."""
    total, left = (np.vdot(d, d) for d in (x - x.mean(dtype=np.float64) for x in (returns, returns - values)))
    return float("nan") if total == 0 else float(1 - left / total)
