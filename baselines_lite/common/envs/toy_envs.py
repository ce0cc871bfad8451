"""Tiny tasks with known answers, for smoke tests: `--env=baselines_lite.common.envs.toy_envs:IdentityDiscrete-v0`."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleEnv


class Identity(gym.Env):
    """Repeat what you see: each observation is a fresh uniform sample of the action space.

    With an observation space of its own, a Dict, what must be repeated is its part "answer". Reward 1 where the action
    equals the observation in all components, or for a Box -(action - observation)^2 / 2 summed over components. Never
    terminates; the registered ids are truncated after 100 steps. (The task of OpenAI Baselines' own tests.)
    """

    def __init__(self, action_space: gym.Space, observation_space: gym.Space | None = None) -> None:
        self.action_space, self.observation_space = action_space, observation_space or action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(int(self.np_random.integers(2**31)))
        self._obs = self.observation_space.sample()
        return self._obs, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        answer = self._obs["answer"] if isinstance(self._obs, dict) else self._obs
        if isinstance(self.action_space, gym.spaces.Box):
            reward = -0.5 * float(np.square(action - answer).sum())
        else:
            reward = float(np.array_equal(action, answer))
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


class ChainBox(Chain):
    """Chain for continuous actions: above 0 steps on, the rest leaves."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = gym.spaces.Box(-1.0, 1.0, (1,))

    def step(self, action: np.ndarray) -> tuple[int, float, bool, bool, dict[str, Any]]:
        return super().step(int(action[0] > 0))


class FixedSequence(gym.Env):
    """Play a sequence of 5 actions out of 10 by heart: the observation is always 0, a right action earns 1.

    The sequence is drawn once, from a fixed seed; episodes terminate after it. Without memory of the step number a
    policy earns a fifth at best. (The task of OpenAI Baselines' own tests.)
    """

    SEQUENCE = tuple(np.random.default_rng(0).integers(10, size=5).tolist())

    def __init__(self) -> None:
        self.observation_space, self.action_space = gym.spaces.Discrete(1), gym.spaces.Discrete(10)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        super().reset(seed=seed)
        self._t = 0
        return 0, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        reward = float(action == self.SEQUENCE[self._t])
        self._t += 1
        return 0, reward, self._t == len(self.SEQUENCE), False, {}


class Detour(gym.Env):
    """Two positions. At 0, action 0 ends the episode with 1, showing position 1; action 1 leads to position 1 with 0.9.

    Position 1 ends it with nothing. Action 0 is right. Who trains on the dead step of NEXT_STEP mode takes position 1
    for the way back to the start, and prefers the detour (with lam=0).
    """

    def __init__(self) -> None:
        self.observation_space, self.action_space = gym.spaces.Discrete(2), gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        super().reset(seed=seed)
        self._position = 0
        return 0, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        before, self._position = self._position, 1
        reward = 0.0 if before == 1 else 1.0 if action == 0 else 0.9
        return 1, reward, before == 1 or action == 0, False, {}


class MaskedCartPole(CartPoleEnv):
    """CartPole that shows position and angle only: velocities must be remembered from step to step."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.observation_space = gym.spaces.Box(self.observation_space.low[::2], self.observation_space.high[::2])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None
              ) -> tuple[np.ndarray, dict[str, Any]]:
        obs, info = super().reset(seed=seed, options=options)
        return obs[::2], info

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        obs, *rest = super().step(action)
        return obs[::2], *rest


def _identity(name: str, action_space: gym.Space, observation_space: gym.Space | None = None) -> None:
    gym.register(name, entry_point=Identity, max_episode_steps=100,
                 kwargs={"action_space": action_space, "observation_space": observation_space})


_identity("IdentityDiscrete-v0", gym.spaces.Discrete(10))
_identity("IdentityBox-v0", gym.spaces.Box(-1.0, 1.0, (1,)))
_identity("IdentityMultiDiscrete-v0", gym.spaces.MultiDiscrete([3, 3]))
_identity("IdentityMultiBinary-v0", gym.spaces.MultiBinary(3))
_identity("IdentityDict-v0", gym.spaces.Discrete(5), gym.spaces.Dict(
    {"answer": gym.spaces.Discrete(5), "noise": gym.spaces.Tuple([gym.spaces.Box(-1, 1, (2,)),
                                                                  gym.spaces.MultiBinary(2)])}))
gym.register("Chain-v0", entry_point=Chain, max_episode_steps=2)
gym.register("ChainBox-v0", entry_point=ChainBox, max_episode_steps=2)
gym.register("FixedSequence-v0", entry_point=FixedSequence)
gym.register("Detour-v0", entry_point=Detour)
gym.register("MaskedCartPole-v1", entry_point=MaskedCartPole, max_episode_steps=500)
