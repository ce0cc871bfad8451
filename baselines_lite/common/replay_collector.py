"""Collecting experience into a replay buffer, for algorithms that learn from the past."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from baselines_lite.common.episode_stats import WHOLE_EPISODE_OVER, Episode, EpisodeTracker
from baselines_lite.common.errors import UserError
from baselines_lite.common.mpi import Comm
from baselines_lite.common.observations import Encoder
from baselines_lite.common.policy import Policy
from baselines_lite.common.replay_buffer import ReplayBuffer
from baselines_lite.common.seeding import env_seeds
from baselines_lite.common.vec_env import final_observations, reset

# (features [N, ...], firsts [N]: an episode begins here) -> actions [N, ...]
Explore = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Experience(NamedTuple):
    """What happened since the last row of the log, as Experiment.log takes it."""

    episodes: list[Episode]
    time_env: float
    time_act: float


def frame_of(encoder: Encoder, stack: int) -> np.ndarray:
    """An example of what a replay buffer holds of one observation: its features, or the newest of `stack` pictures."""
    return np.zeros(encoder.shape[:-1] if stack > 1 else encoder.shape, encoder.dtype)


class ReplayCollector:
    """Steps a VectorEnv and stores what happens in a replay buffer, where it can be drawn at once.

    Features are stored before they are normalised. With a buffer that stacks, the last axis of the features are frames,
    oldest first. `shape_rewards` makes the rewards to train on from raw ones. `cut_is_death` takes time limits for
    terminal states. Reset seeds come from (seed, rank).
    """

    def __init__(self, venv: VectorEnv, policy: Policy, buffer: ReplayBuffer, comm: Comm, *, seed: int = 0,
                 shape_rewards: Callable[[np.ndarray], np.ndarray] = lambda rewards: rewards,
                 cut_is_death: bool = False) -> None:
        self.venv, self.policy, self.buffer, self.comm = venv, policy, buffer, comm
        self.num_env, self.shape_rewards, self._cut_is_death = venv.num_envs, shape_rewards, cut_is_death
        self._next_step = venv.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
        self._tracker = EpisodeTracker(self.num_env)
        self._start, self._time_env, self._time_act = time.perf_counter(), 0.0, 0.0
        self._episodes: list[Episode] = []
        self._complaint: str | None = None
        self._ahead = 0  # steps beyond what was asked for, in NEXT_STEP mode
        self._firsts, self._dead = np.ones(self.num_env, bool), np.zeros(self.num_env, bool)
        self._see(reset(venv, env_seeds(seed, comm.rank, self.num_env)))
        buffer.begin(self._frames())

    def _see(self, obs: object) -> None:
        """Takes in raw observations: features to act on, and to store."""
        if self.policy.normalize.obs is None:
            self._features = self._stored = self.policy.features(obs)
        else:
            self._stored = np.empty((self.num_env, self.policy.encoder.vector_size), np.float32)
            self._features = self.policy.features(obs, raw=self._stored)

    def _frames(self) -> np.ndarray:
        return self._stored if self.buffer.stack == 1 else self._stored[..., -1]

    def collect(self, nsteps: int, explore: Explore) -> None:
        """`nsteps` steps of every environment: in NEXT_STEP mode so many on average, dead ones not counted."""
        start, time_env = time.perf_counter(), self._time_env
        missing = nsteps * self.num_env - self._ahead
        while missing > 0:
            missing -= self._step(explore)
        self._ahead = -missing
        self._time_act += time.perf_counter() - start - (self._time_env - time_env)

    def _step(self, explore: Explore) -> int:
        """One step of every environment; returns how many were not dead."""
        actions = explore(self._features, self._firsts)
        before = time.perf_counter()
        obs, rewards, terminated, truncated, infos = self.venv.step(self.policy.to_env(actions))
        now = time.perf_counter()
        self._time_env += now - before
        done, dead, finals = terminated | truncated, self._dead, {}
        if self._next_step:
            self._firsts, self._dead = dead, done
        else:
            self._firsts = done
            cut = np.flatnonzero(truncated & ~terminated)
            if len(cut):
                finals = dict(zip(cut.tolist(), self._finals(final_observations(infos, cut)), strict=True))
        over = infos.get(WHOLE_EPISODE_OVER, done)
        fresh = dead if self._next_step else over  # a lost life does not clear the screen
        finite = np.isfinite(rewards)
        if not finite.all():
            n = int(np.flatnonzero(~finite)[0])
            self._complaint = f"environment {n} of rank {self.comm.rank} gave the reward {rewards[n]}"
        self._see(obs)
        terminal = done if self._cut_is_death else terminated
        shaped = self.shape_rewards(np.where(finite, rewards, 0.0))
        self.buffer.add(actions, shaped, terminal, self._frames(), fresh, finals, finite & ~dead)
        self._episodes += self._tracker.step(rewards, over, dead, now - self._start)
        return self.num_env - int(dead.sum())

    def _finals(self, obs: object) -> np.ndarray:
        """Last observations as the buffer gives them: features before normalisation."""
        if self.policy.normalize.obs is not None:
            return self.policy.encoder.vector(obs).astype(np.float32)
        return self.policy.features(obs)

    def drain(self) -> Experience:
        """What happened since the last call. Raises UserError on all ranks after a reward that is not finite.

        Such a reward is never trained on.
        """
        self.comm.together(self._check)
        experience = Experience(self._episodes, self._time_env, self._time_act)
        self._episodes, self._time_env, self._time_act = [], 0.0, 0.0
        return experience

    def _check(self) -> None:
        if self._complaint:
            raise UserError(f"{self._complaint}; training stops before it spoils the policy")
