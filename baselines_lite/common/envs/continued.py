"""Environments that go on after a stop: what a checkpoint holds of them, and how they come back to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper

from baselines_lite.common.envs.env_state import env_state, restore_env, unknown_part
from baselines_lite.common.envs.workers import close


class Continued(VectorWrapper):
    """A vector environment whose state can be kept, between two steps.

    Where all of its parts are known, it is their state. Where one is not, it is how they began, and the actions since
    then, which are taken again: so they must begin anew now and then, by a reset with seeds, for which `make` makes
    others like them. Without `make` they are the caller's, of whom it is hoped that a reset leaves nothing behind.
    `unknown` is the name of a part whose state cannot be kept, or None.
    """

    def __init__(self, env: VectorEnv, make: Callable[[], VectorEnv] | None) -> None:
        super().__init__(env)
        self._make, self.unknown = make, unknown_part(env)
        self._seed: Any = None
        self._actions: list[np.ndarray] = []
        self._obs: Any = None  # what was seen last
        if self.unknown is None:
            self.reset, self.step = env.reset, env.step  # nothing to note

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As Gymnasium's; see above for what a seed does."""
        if self._actions and seed is not None and self._make is not None:
            close(self.env)
            self.env = self._make()
        self._seed, self._actions = seed, []
        self._obs, infos = self.env.reset(seed=seed, options=options)
        return self._obs, infos

    def step(self, actions: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """As Gymnasium's."""
        self._actions.append(np.array(actions))
        result = self.env.step(actions)
        self._obs = result[0]
        return result

    def state(self) -> dict[str, Any]:
        """What `restore` takes."""
        if self.unknown is None:
            return {"parts": env_state(self.env)}
        return {"seed": self._seed, "actions": np.array(self._actions), "seen": list(leaves(self._obs))}

    def restore(self, state: Mapping[str, Any]) -> bool:
        """Brings environments that were just made to where others were; whether they see what those saw."""
        if self.unknown is None:
            self.env.reset(seed=0)
            restore_env(self.env, state["parts"])
            return True
        self.reset(seed=state["seed"])
        for actions in state["actions"]:
            self.step(actions)
        pairs = list(zip(leaves(self._obs), state["seen"], strict=True))
        return all(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in pairs)


def leaves(obs: Any) -> list[np.ndarray]:
    """The arrays of a batch of observations, nested as it is."""
    if isinstance(obs, dict | tuple | list):
        return [array for part in (obs.values() if isinstance(obs, dict) else obs) for array in leaves(part)]
    return [np.asarray(obs)]
