"""Segments of the past: `nsteps` successive steps of one environment, with what the policy thought of them then."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from baselines_lite.common.policies.actor_q import ActorQ
from baselines_lite.common.sampling.memory import require
from baselines_lite.common.sampling.rollout import Rollout
from baselines_lite.common.system.state import Stateful


class Ends(NamedTuple):
    """E episodes that a time limit cut inside B segments: where, and what was seen last."""

    segments: np.ndarray  # [E] which of the B segments
    steps: np.ndarray  # [E] which of its T steps
    obs: np.ndarray  # [E, ...] features of the final observation
    states: np.ndarray  # [E, S] the memory there; S = 0 for a policy without one


class Segments(NamedTuple):
    """B segments of T steps as arrays by name: actions, rewards, terminated and dones [B, T], log mu(.|s) [B, T, K].

    obs [B, T + 1, ...] are features, the last of what followed, before any reset. Of a recurrent policy also states
    [B, S], the memory before the first step, and firsts [B, T + 1].
    """

    data: dict[str, np.ndarray]
    ends: Ends


def segments_of(policy: ActorQ, rollout: Rollout) -> Segments:
    """A policy's rollout of N environments as N segments."""
    data = {"obs": np.concatenate([rollout.obs, rollout.next_obs[-1:]]), "actions": rollout.actions,
            "rewards": rollout.rewards.astype(np.float32), "terminated": rollout.terminated, "dones": rollout.dones,
            "log_mu": policy.log_probs(rollout.heads)}
    if rollout.states is not None:
        data["firsts"] = np.concatenate([rollout.firsts, np.zeros_like(rollout.firsts[:1])])
    data = {name: array.swapaxes(0, 1) for name, array in data.items()}
    steps, envs = np.nonzero(rollout.dones & ~rollout.terminated)
    states = np.empty((len(steps), 0), np.float32)
    if rollout.states is not None:
        data["states"], states = rollout.states[0], rollout.next_states[steps, envs]
    return Segments(data, Ends(envs, steps, rollout.next_obs[steps, envs], states))


def unstack(obs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Stacks [B, L, h, w, k] of a game's last k frames, oldest first, as (frames [B, k - 1 + L, h, w], ages [B, L]).

    The frames are the older ones of the first stack, then the newest of every stack. A stack's age is how many of the
    frames before its newest it shows; where there are fewer than k - 1, because the game has just begun, it is black.
    Raises ValueError for what is no such stack: `restack` gives back every bit.
    """
    B, L, *_, k = obs.shape
    frames = np.concatenate([np.moveaxis(obs[:, 0, ..., :-1], -1, 1), obs[..., -1]], axis=1)
    moved_on = np.ones((B, L - 1), bool)  # the stack is the last one without its oldest frame, and a new one
    for i in range(k - 1):  # by channel: five times faster than all at once
        moved_on &= (obs[:, 1:, ..., i] == obs[:, :-1, ..., i + 1]).all(axis=(2, 3))
    if obs[:, 1:][~moved_on][..., :-1].any():
        raise ValueError("an observation neither moves on by one frame nor begins a game")
    ages = np.full((B, L), k - 1, np.uint8)
    for t in range(1, L):
        ages[:, t] = np.where(moved_on[:, t - 1], np.minimum(ages[:, t - 1] + 1, k - 1), 0)
    return frames, ages


def restack(frames: np.ndarray, ages: np.ndarray) -> np.ndarray:
    """The stacks [B, L, h, w, k] of which `unstack` made frames [B, k - 1 + L, h, w] and ages [B, L]."""
    L = ages.shape[1]
    k = frames.shape[1] - L + 1
    obs = np.empty((*ages.shape, *frames.shape[2:], k), frames.dtype)
    for i in range(k):
        obs[..., i] = frames[:, i : i + L]
        obs[ages < k - 1 - i, ..., i] = 0
    return obs


class Replay(Stateful):
    """The latest `buffer_size` steps of each of `num_env` environments, in rings of whole segments.

    `stack`: observations are stacks of so many frames, each of which is stored once. Raises UserError where the host
    has less memory free than `ranks` such buffers take.
    """

    def __init__(self, policy: ActorQ, buffer_size: int, num_env: int, nsteps: int, stack: int = 1, ranks: int = 1
                 ) -> None:
        self.capacity, self.nsteps, self._stack = buffer_size // nsteps, nsteps, stack
        shape, dtype = policy.encoder.shape, policy.encoder.dtype
        layout = {"actions": ((nsteps,), policy.pdtype.action_dtype), "rewards": ((nsteps,), np.float32),
                  "terminated": ((nsteps,), bool), "dones": ((nsteps,), bool),
                  "log_mu": ((nsteps, policy.pdtype.head_size), np.float32)}
        if stack > 1:
            layout |= {"frames": ((stack + nsteps, *shape[:-1]), dtype), "ages": ((nsteps + 1,), np.uint8)}
        else:
            layout |= {"obs": ((nsteps + 1, *shape), dtype)}
        if policy.recurrent:
            layout |= {"states": (policy.initial_state(1).shape[1:], np.float32), "firsts": ((nsteps + 1,), bool)}
        places = (self.capacity, num_env)
        self.nbytes = sum(math.prod((*places, *each)) * np.dtype(kind).itemsize for each, kind in layout.values())
        require(self.nbytes, ranks, f"buffer_size={buffer_size} with num_env={num_env}")
        self._rings = {name: np.empty((*places, *each), kind) for name, (each, kind) in layout.items()}
        self._ends: list[Ends | None] = [None] * self.capacity
        self._envs, self._count, self._seconds = np.arange(num_env), 0, 0.0

    def __len__(self) -> int:
        """How many steps of each environment are there."""
        return min(self._count, self.capacity) * self.nsteps

    def put(self, segments: Segments) -> None:
        """Stores a segment of every environment, in place of the oldest where the rings are full."""
        start, slot, data = time.perf_counter(), self._count % self.capacity, dict(segments.data)
        if self._stack > 1:
            data["frames"], data["ages"] = unstack(data.pop("obs"))
        for name, ring in self._rings.items():
            ring[slot] = data[name]
        self._ends[slot] = segments.ends
        self._count += 1
        self._seconds += time.perf_counter() - start

    def draw(self, rng: np.random.Generator) -> Segments:
        """A segment of every environment, each at random from its own."""
        start = time.perf_counter()
        slots = rng.integers(min(self._count, self.capacity), size=len(self._envs))
        data = {name: ring[slots, self._envs] for name, ring in self._rings.items()}
        if self._stack > 1:
            data["obs"] = restack(data.pop("frames"), data.pop("ages"))
        ends = [[array[ends.segments == n] for array in ends]
                for n, ends in enumerate(self._ends[slot] for slot in slots)]
        self._seconds += time.perf_counter() - start
        return Segments(data, Ends(*map(np.concatenate, zip(*ends, strict=True))))

    @property
    def written(self) -> int:
        """Segments of every environment so far: number i lies in slot i modulo `capacity`."""
        return self._count

    @property
    def oldest(self) -> int:
        """The number of the oldest segment that is there."""
        return max(0, self._count - self.capacity)

    def rings(self) -> dict[str, np.ndarray]:
        """Where the segments so far lie."""
        return self._rings

    def state(self) -> dict[str, Any]:
        """What is not in `rings`."""
        return {"count": self._count, "ends": [ends and list(ends) for ends in self._ends]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Makes the buffer what it was, once its `rings` are."""
        self._count, self._ends = state["count"], [ends and Ends(*ends) for ends in state["ends"]]

    def lap(self) -> float:
        """Seconds spent on storing and drawing since the last call."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds
