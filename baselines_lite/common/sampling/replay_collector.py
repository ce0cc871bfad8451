"""Collecting experience into a replay buffer, for algorithms that learn from the past."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from baselines_lite.common.envs.episode_stats import WHOLE_EPISODE_OVER, Episode, EpisodeTracker
from baselines_lite.common.envs.vec_env import final_observations, reset
from baselines_lite.common.networks.observations import Encoder
from baselines_lite.common.policies.policy import Policy
from baselines_lite.common.sampling.replay_buffer import ReplayBuffer
from baselines_lite.common.system.errors import UserError, not_finite
from baselines_lite.common.system.mpi import Comm
from baselines_lite.common.system.seeding import env_seeds
from baselines_lite.common.system.state import Stateful
from baselines_lite.common.system.watchdog import beat

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


class ReplayCollector(Stateful):
    """Steps a VectorEnv and stores what happens in a replay buffer, where it can be drawn at once.

    Features are stored before they are normalised. With a buffer that stacks, the last axis of the features are frames,
    oldest first. `shape_rewards` makes the rewards to train on from raw ones. `cut_is_death` takes time limits for
    terminal states. Reset seeds come from (seed, rank), those of `renew` from its argument too. `resumed`: the
    environments are where they are to go on, and the rest is about to be restored. `start`: when the run began, by
    time.perf_counter(); None: now.

    A reward or an observation that is not finite is never drawn from the buffer, and ends the collecting on its rank;
    `drain` ends the run.
    """

    STATE = ("_features", "_stored", "_firsts", "_dead", "_tracker", "_steps", "_ahead")

    def __init__(self, venv: VectorEnv, policy: Policy, buffer: ReplayBuffer, comm: Comm, *, seed: int = 0,
                 shape_rewards: Callable[[np.ndarray], np.ndarray] = lambda rewards: rewards,
                 cut_is_death: bool = False, resumed: bool = False, start: float | None = None) -> None:
        self.venv, self.policy, self.buffer, self.comm, self._seed = venv, policy, buffer, comm, seed
        self.num_env, self.shape_rewards, self._cut_is_death = venv.num_envs, shape_rewards, cut_is_death
        self._next_step = venv.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
        self._start, self._time_env, self._time_act = time.perf_counter() if start is None else start, 0.0, 0.0
        self._episodes: list[Episode] = []
        self._complaint: str | None = None
        self._steps = 0  # of every environment so far
        self._ahead = 0  # steps beyond what was asked for, in NEXT_STEP mode
        self._features = self._stored = np.empty(0)
        self._clear()
        if not resumed:
            self._begin("environments")

    def _clear(self) -> None:
        self._firsts, self._dead = np.ones(self.num_env, bool), np.zeros(self.num_env, bool)
        self._tracker = EpisodeTracker(self.num_env)

    def _begin(self, purpose: str) -> None:
        seeds = env_seeds(self._seed, self.comm.rank, self.num_env, purpose)
        obs = self.comm.together(lambda: reset(self.venv, seeds))
        self._clear()
        self._see(obs, np.ones(self.num_env, bool))
        self.comm.together(self._check)
        self.buffer.begin(self._frames())

    def renew(self, purpose: str) -> None:
        """Begins new episodes; the present ones end as by a time limit, and do not count as finished. Collective."""
        # What was seen last makes room for the new episodes' first observations. In NEXT_STEP mode it may be the end of
        # an episode that is just over, and is kept of all: after a death it is never asked for.
        going_on = np.flatnonzero(~self._firsts | self._next_step)
        self.buffer.cut_off({int(n): self._stored[n].copy() for n in going_on})
        self._begin(purpose)

    def restore(self, state: Mapping[str, Any]) -> None:
        self._features, self._stored = state["_features"], state["_stored"]
        super().restore(state)

    def _see(self, obs: object, usable: np.ndarray) -> None:
        """Takes in raw observations: features to act on, and to store. See `_check_finite` for `usable`."""
        if self.policy.normalize.obs is None:
            self._features = self._stored = self.policy.features(obs)
        else:
            self._stored = np.empty((self.num_env, self.policy.encoder.vector_size), np.float32)
            self._features = self.policy.features(obs, raw=self._stored)
        self._check_finite("an observation", self.policy.encoder.numbers(self._stored), usable)

    def _check_finite(self, what: str, numbers: np.ndarray | None, usable: np.ndarray, envs: Any = slice(None)) -> None:
        """Where numbers [K, ...] of the environments `envs` are not finite: 0, not in `usable` [N], and a complaint.

        The sum of squares costs a microsecond, and is finite only if they are; enormous ones need a second look.
        """
        if numbers is None or math.isfinite(np.vdot(numbers, numbers)):
            return
        finite = np.isfinite(numbers)
        if not finite.all():
            usable[envs] &= finite.reshape(len(finite), -1).all(axis=1)
            row, *column = np.argwhere(~finite)[0]
            env = int(np.arange(self.num_env)[envs][row])
            self._complaint = self._complaint or not_finite(what, numbers[row, *column], self._steps, env,
                                                            self.comm.rank)
            numbers[~finite] = 0

    def _frames(self) -> np.ndarray:
        return self._stored if self.buffer.stack == 1 else self._stored[..., -1]

    def collect(self, nsteps: int, explore: Explore) -> int:
        """`nsteps` steps of every environment: in NEXT_STEP mode so many on average, dead ones not counted.

        Returns how many they were with the dead ones.
        """
        start, time_env, before = time.perf_counter(), self._time_env, self._steps
        missing = nsteps * self.num_env - self._ahead
        while missing > 0 and not self._complaint:
            missing -= self._step(explore)
        self._ahead = -missing
        self._time_act += time.perf_counter() - start - (self._time_env - time_env)
        return self._steps - before

    def _step(self, explore: Explore) -> int:
        """One step of every environment; returns how many were not dead."""
        actions = explore(self._features, self._firsts)
        before = time.perf_counter()
        obs, rewards, terminated, truncated, infos = self.venv.step(self.policy.to_env(actions))
        now = time.perf_counter()
        self._time_env += now - before
        beat()
        self._steps += 1
        done, dead, finals = terminated | truncated, self._dead, {}
        usable, rewards = ~dead, np.array(rewards)
        self._check_finite("the reward", rewards, usable)
        if self._next_step:
            self._firsts, self._dead = dead, done
        else:
            self._firsts = done
            cut = np.flatnonzero(truncated & ~terminated)
            if len(cut):
                finals = self._finals(infos, cut, usable)
        over = infos.get(WHOLE_EPISODE_OVER, done)
        fresh = dead if self._next_step else over  # a lost life does not clear the screen
        self._see(obs, usable)
        terminal = done if self._cut_is_death else terminated
        self.buffer.add(actions, self.shape_rewards(rewards), terminal, self._frames(), fresh, finals, usable)
        self._episodes += self._tracker.step(rewards, over, dead, now - self._start, self._steps)
        return self.num_env - int(dead.sum())

    def _finals(self, infos: dict[str, Any], cut: np.ndarray, usable: np.ndarray) -> dict[int, np.ndarray]:
        """The last observations of the environments `cut` as the buffer gives them: features before normalisation."""
        try:
            obs = final_observations(infos, cut, self.venv.single_observation_space)
        except UserError as error:  # told by `drain`, on all ranks together
            self._complaint = str(error)
            usable[cut] = False
            return {}
        features = (self.policy.features(obs) if self.policy.normalize.obs is None
                    else self.policy.encoder.vector(obs).astype(np.float32))
        self._check_finite("a final observation", self.policy.encoder.numbers(features), usable, cut)
        return dict(zip(cut.tolist(), features, strict=True))

    def drain(self) -> Experience:
        """What happened since the last call. Raises UserError on all ranks after what cannot be trained on."""
        self.comm.together(self._check)
        experience = Experience(self._episodes, self._time_env, self._time_act)
        self._episodes, self._time_env, self._time_act = [], 0.0, 0.0
        return experience

    def _check(self) -> None:
        if self._complaint:
            raise UserError(self._complaint)
