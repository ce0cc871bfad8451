"""An environment of one's own: a plain class, and an id for it.

    python run.py --env=examples.corridor:Corridor-v0 --num_timesteps=3e4
    python run.py --env=examples.corridor:Corridor-v0 --env_kwargs='{"length": 20}' --num_timesteps=3e4
    baselines-lite check examples.corridor:Corridor-v0
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np


class Corridor(gym.Env):
    """Walk to the right end of a corridor: each step costs 0.1, the end gives 1."""

    def __init__(self, length: int = 10) -> None:
        self.length = length
        self.observation_space = gym.spaces.Box(0.0, 1.0, (1,))
        self.action_space = gym.spaces.Discrete(2)  # left, right

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)  # seeds self.np_random, from which everything random is to be drawn
        self.position = int(self.np_random.integers(self.length))
        return self._see(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.position = max(0, self.position + (1 if action == 1 else -1))
        at_end = self.position >= self.length
        return self._see(), 1.0 if at_end else -0.1, at_end, False, {}

    def _see(self) -> np.ndarray:
        return np.array([self.position / self.length], np.float32)

    # With these two, checkpoints keep it as it is; without them it begins anew at fixed updates.
    def get_state(self) -> dict[str, Any]:
        """All that the next step or reset depends on; a generator of NumPy's may be in it."""
        return {"position": self.position, "random": self.np_random}

    def set_state(self, state: dict[str, Any]) -> None:
        """Makes it what it was."""
        self.position, self.np_random = state["position"], state["random"]


gym.register("Corridor-v0", Corridor, max_episode_steps=100)
