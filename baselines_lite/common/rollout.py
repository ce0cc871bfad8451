"""Collecting experience: `Collector.collect()` steps the environments and returns a `Rollout` of [T, N] arrays.

The inner loop does only what the next step needs: normalise, act, step. Values, log-probabilities, normalised rewards
and episode statistics are computed for the whole rollout at once, from the same weights and statistics, which are
frozen meanwhile.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import numpy as np
from gymnasium.vector import VectorEnv

from baselines_lite.common.episode_stats import WHOLE_EPISODE_OVER, Episode, EpisodeTracker
from baselines_lite.common.mpi import Comm
from baselines_lite.common.policy import ActorCritic
from baselines_lite.common.seeding import env_seeds, stream
from baselines_lite.common.vec_env import final_observations


@dataclasses.dataclass
class Rollout:
    """T steps of N environments, time-major. T * N samples in all."""

    obs: np.ndarray  # [T, N, ...] features: normalised vectors or uint8 pictures
    actions: np.ndarray  # [T, N, ...] as the policy drew them
    rewards: np.ndarray  # [T, N] as trained on: scaled, normalised
    terminated: np.ndarray  # [T, N] the transition led into a terminal state
    dones: np.ndarray  # [T, N] the transition ended its episode: terminated or truncated
    values: np.ndarray  # [T, N] V(s_t)
    next_values: np.ndarray  # [T, N] V of the state that followed, before any reset
    logp: np.ndarray  # [T, N] log pi(a_t | s_t)
    episodes: list[Episode]  # this rank's episodes that ended here: raw returns
    time_env: float  # seconds spent in the environments
    time_act: float  # seconds spent on acting and everything else here, collectives apart


def flatten(array: np.ndarray) -> np.ndarray:
    """[T, N, ...] -> [T * N, ...]: sample t * N + n is step t of environment n."""
    return array.reshape(-1, *array.shape[2:])


class Collector:
    """Steps a VectorEnv with a policy, `nsteps` steps at a time, carrying on where the last rollout ended.

    Reset seeds come from (seed, rank); action noise from (seed, noise_rank). Statistics are merged over `comm`'s ranks
    after each rollout; pass Comm() to keep them per rank. `shape_rewards` makes the rewards to train on from raw ones.
    An environment whose training episodes are parts of a longer one (lives of a game) says in
    infos[WHOLE_EPISODE_OVER] [N] when that has ended: only then does an episode count as finished in the log.
    """

    WARM_UP = 1024  # random steps per rank that give the first rollout its normalisation statistics

    def __init__(self, venv: VectorEnv, policy: ActorCritic, nsteps: int, comm: Comm, *, seed: int = 0, rank: int = 0,
                 noise_rank: int | None = None,
                 shape_rewards: Callable[[np.ndarray], np.ndarray] = lambda rewards: rewards) -> None:
        self.venv, self.policy, self.comm = venv, policy, comm
        self.nsteps, self.num_env = nsteps, venv.num_envs
        self.shape_rewards = shape_rewards
        self._tracker = EpisodeTracker(self.num_env)
        self._noise = stream(seed, "noise", rank if noise_rank is None else noise_rank)
        self._seeds = env_seeds(seed, rank, self.num_env)
        self._start = time.perf_counter()
        normalize = policy.normalize
        if (normalize.obs is not None or normalize.ret is not None) and (normalize.obs or normalize.ret).count == 0:
            self._warm_up(stream(seed, "warm up", rank))
        self._reset()

    def _reset(self) -> None:
        obs, _ = self.venv.reset(seed=self._seeds)
        self._obs = self.policy.encoder(obs)
        self.policy.normalize.restart()

    def _warm_up(self, rng: np.random.Generator) -> None:
        self._reset()
        self.venv.single_action_space.seed(int(rng.integers(2**31)))
        steps = -(-self.WARM_UP // self.num_env)
        raw = np.empty((steps, *self._obs.shape), self._obs.dtype)
        rewards = np.empty((steps, self.num_env))
        dones = np.empty((steps, self.num_env), bool)
        for t in range(steps):
            raw[t] = self._obs
            actions = np.stack([self.venv.single_action_space.sample() for _ in range(self.num_env)])
            obs, rewards[t], terminated, truncated, _ = self.venv.step(actions)
            self._obs, dones[t] = self.policy.encoder(obs), terminated | truncated
        self.policy.normalize.update(raw, self.shape_rewards(rewards), dones, self.comm)

    def collect(self) -> Rollout:
        """The next `nsteps` steps of every environment."""
        T, N, policy, normalize, venv = self.nsteps, self.num_env, self.policy, self.policy.normalize, self.venv
        clock, time_env, time_comm = time.perf_counter, 0.0, self.comm.seconds
        start = clock()
        act, to_env, encode = policy.actor(), policy.to_env, policy.encoder
        noise = policy.pdtype.noise(self._noise, (T, N))
        # Row T is the state after the last step: its value is wanted too, so that one call evaluates everything.
        obs = np.empty((T + 1, N, *encode.shape), encode.dtype)
        raw = None if normalize.obs is None else np.empty((T, *self._obs.shape), self._obs.dtype)
        actions = np.zeros((T + 1, N, *policy.pdtype.action_shape), policy.pdtype.action_dtype)
        values, logp = np.empty((2, T + 1, N), policy.dtype.as_numpy_dtype)
        rewards = np.empty((T, N))
        terminated, truncated, over = np.empty((T, N), bool), np.empty((T, N), bool), np.zeros((T, N), bool)
        cut: list[tuple[int, int]] = []  # (t, n) of episodes that a time limit cut, and their final observations
        final_obs: list[np.ndarray] = []

        for t in range(T):
            if raw is not None:
                raw[t] = self._obs
            normalize.normalize_obs(self._obs, out=obs[t])
            acted = act(obs[t], noise[t])
            actions[t] = acted.actions
            if acted.values is not None:
                values[t], logp[t] = acted.values, acted.logp
            env_actions = to_env(actions[t])
            before = clock()
            next_obs, rewards[t], terminated[t], truncated[t], infos = venv.step(env_actions)
            time_env += clock() - before
            self._obs = encode(next_obs)
            if "final_obs" in infos:  # some episode ended
                rows = np.flatnonzero(truncated[t] & ~terminated[t])
                cut.extend((t, n) for n in rows)
                final_obs.extend(final_observations(infos, rows))
                over[t] = infos.get(WHOLE_EPISODE_OVER, terminated[t] | truncated[t])

        normalize.normalize_obs(self._obs, out=obs[T])
        if acted.values is None:
            values, logp = (x.reshape(T + 1, N) for x in policy.values_and_logp(flatten(obs), flatten(actions)))
        else:
            values[T] = policy.values(obs[T])
        next_values = values[1:].copy()
        if cut:
            times, rows = zip(*cut, strict=True)
            next_values[times, rows] = policy.values(policy.features(np.stack(final_obs)))

        dones = terminated | truncated
        shaped = self.shape_rewards(rewards)
        trained = normalize.normalize_rewards(shaped)
        normalize.update(raw, shaped, dones, self.comm)
        end = clock()
        episodes = self._tracker.finished(rewards, over, start - self._start, end - self._start)
        return Rollout(obs[:T], actions[:T], trained, terminated, dones, values[:T], next_values, logp[:T], episodes,
                       time_env, end - start - time_env - (self.comm.seconds - time_comm))
