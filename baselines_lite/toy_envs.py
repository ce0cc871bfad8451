"""Tiny tasks with known answers, for smoke tests: `--env=baselines_lite.toy_envs:IdentityDiscrete-v0`."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np


class Identity(gym.Env):
    """Repeat what you see: each observation is a fresh uniform sample of the action space.

    Reward 1 where the action equals the observation in all components, or for a Box -(action - observation)^2 / 2
    summed over components. Never terminates; the registered ids are truncated after 100 steps. (The task of OpenAI
    Baselines' own tests.)
    """

    def __init__(self, space: gym.Space) -> None:
        self.observation_space = self.action_space = space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(int(self.np_random.integers(2**31)))
        self._obs = self.observation_space.sample()
        return self._obs, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if isinstance(self.action_space, gym.spaces.Box):
            reward = -0.5 * float(np.square(action - self._obs).sum())
        else:
            reward = float(np.array_equal(action, self._obs))
        self._obs = self.observation_space.sample()
        return self._obs, reward, False, False, {}


class Chain(gym.Env):
    """A road of 8 positions: step on (action 1), or leave for a reward of 2 (action 0). Its end is worth 10.

    Episodes start anywhere. With discount 0.9 stepping on is right everywhere: from the first position it is worth
    10 * 0.9^7 = 4.8. The registered id cuts episodes after 2 steps; counting that as death makes leaving look better
    wherever the end is more than 2 steps away.
    """

    LENGTH, LEAVE, END = 8, 2.0, 10.0

    def __init__(self) -> None:
        self.observation_space, self.action_space = gym.spaces.Discrete(self.LENGTH), gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        super().reset(seed=seed)
        self._position = int(self.np_random.integers(self.LENGTH))
        return self._position, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        if action == 0:
            return self._position, self.LEAVE, True, False, {}
        if self._position == self.LENGTH - 1:
            return self._position, self.END, True, False, {}
        self._position += 1
        return self._position, 0.0, False, False, {}


def _identity(name: str, space: gym.Space) -> None:
    gym.register(name, entry_point=Identity, kwargs={"space": space}, max_episode_steps=100)


_identity("IdentityDiscrete-v0", gym.spaces.Discrete(10))
_identity("IdentityBox-v0", gym.spaces.Box(-1.0, 1.0, (1,)))
gym.register("Chain-v0", entry_point=Chain, max_episode_steps=2)
