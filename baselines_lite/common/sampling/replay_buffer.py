"""Transitions of the past, drawn uniformly (Lin 1992) or by priority (Schaul et al. 2016, 1511.05952).

Frames are stored once: the observation of a transition is the last `stack` frames of its episode, and the observation
after it begins with all but the first of them. A million transitions of Atari take 7.1 GB, not 56.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from baselines_lite.common.sampling.memory import require
from baselines_lite.common.system.state import Stateful


class Transitions(NamedTuple):
    """B transitions. Stacked observations are [B, ..., stack], oldest frame first; others [B, ...]."""

    obs: np.ndarray
    actions: np.ndarray  # [B, ...]
    rewards: np.ndarray  # [B] float32
    next_obs: np.ndarray  # what followed, before any reset; meaningless where terminated
    terminated: np.ndarray  # [B] bool: nothing follows


class Index(NamedTuple):
    """Where B transitions are: slots of the ring [B] and environments [B]."""

    slots: np.ndarray
    envs: np.ndarray


class ReplayBuffer(Stateful):
    """The latest `size` transitions of `num_env` environments side by side, in a ring of time steps.

    Slot t holds the newest frame of s_t, how many frames before it belong to its episode, and, once it is known, what
    followed. `frame` is an example of what is seen of one environment at one step (without the stack), `action` of what
    it does. Raises UserError where the host has less memory free than `ranks` such buffers take.
    """

    EXTRA = 16  # bytes per transition beside frame and action

    def __init__(self, size: int, num_env: int, frame: np.ndarray, action: np.ndarray, stack: int = 1,
                 ranks: int = 1) -> None:
        self.num_env, self.stack = num_env, stack
        self.steps = size // num_env  # that can be drawn from, per environment
        # The oldest transition needs the frames before it, the newest the frame after it.
        self._slots = self.steps + stack
        shape = (self._slots, num_env)
        self.nbytes = int(np.prod(shape)) * (frame.nbytes + action.nbytes + self.EXTRA)
        require(self.nbytes, ranks, f"buffer_size={size}")
        self._frames = np.zeros((*shape, *frame.shape), frame.dtype)
        self._actions = np.zeros((*shape, *action.shape), action.dtype)
        self._rewards = np.zeros(shape, np.float32)
        self._ages = np.zeros(shape, np.int32)  # frames of its episode before it, as far as they matter
        self._terminated, self._cut, self._usable = np.zeros((3, *shape), bool)
        self._finals: dict[tuple[int, int], np.ndarray] = {}  # observations that a reset replaced, where _cut says so
        self._head, self.filled = 0, 0  # the slot of the present frames; steps that can be drawn from
        self.written = 0  # steps so far: number i lies in slot i modulo the number of slots
        self._barren = 0  # steps since the last one of which any transition can be drawn

    def __len__(self) -> int:
        """How many transitions can be drawn from, dead steps included."""
        return self.filled * self.num_env

    def begin(self, frames: np.ndarray) -> None:
        """The first frames [N, ...] of new episodes of all environments."""
        self._frames[self._head], self._ages[self._head] = frames, 0

    def add(self, actions: np.ndarray, rewards: np.ndarray, terminated: np.ndarray, frames: np.ndarray,
            fresh: np.ndarray, finals: dict[int, np.ndarray] | None = None, usable: np.ndarray | bool = True) -> None:
        """What all environments did, and the newest frames [N, ...] of what followed.

        `fresh` [N] is true where those frames begin a new episode. There `finals` has the environment's last
        observation, unless it was terminal. Transitions that are not `usable` [N] are never drawn.
        """
        head, new = self._head, (self._head + 1) % self._slots
        for n in np.flatnonzero(self._cut[head]):
            del self._finals[head, n]
        self._actions[head], self._rewards[head], self._terminated[head] = actions, rewards, terminated
        self._cut[head], self._usable[head] = False, usable
        self._barren = 0 if np.count_nonzero(usable) else self._barren + 1
        for n, observation in (finals or {}).items():
            self._finals[head, n], self._cut[head, n] = observation, True
        self._frames[new] = frames
        self._ages[new] = np.where(fresh, 0, np.minimum(self._ages[head] + 1, self.stack))
        self._head, self.filled, self.written = new, min(self.filled + 1, self.steps), self.written + 1

    def cut_off(self, finals: Mapping[int, np.ndarray]) -> None:
        """The latest step was the last of these environments' episodes: their observations after it."""
        last = (self._head - 1) % self._slots
        for n, observation in finals.items():
            self._finals[last, n], self._cut[last, n] = observation, True

    @property
    def oldest(self) -> int:
        """The number of the oldest step that is complete; there was none of it yet where it is `written`."""
        return max(0, self.written - self._slots + 1)

    def rings(self) -> dict[str, np.ndarray]:
        """Where the steps so far lie; one is complete, and stays as it is, once the next has been added."""
        return {"frames": self._frames, "ages": self._ages, "actions": self._actions, "rewards": self._rewards,
                "terminated": self._terminated, "cut": self._cut, "usable": self._usable}

    def state(self) -> dict[str, Any]:
        """What is not in `rings`."""
        finals = {place: obs for place, obs in self._finals.items() if place[0] != self._head}  # there it is history
        return {"written": self.written, "frames": self._frames[self._head], "ages": self._ages[self._head],
                "places": np.array(list(finals), np.int64).reshape(-1, 2), "finals": list(finals.values()),
                "barren": self._barren}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Makes the buffer what it was, once its `rings` are."""
        self.written, self._barren = state["written"], state["barren"]
        self._head, self.filled = self.written % self._slots, min(self.written, self.steps)
        self._frames[self._head], self._ages[self._head] = state["frames"], state["ages"]
        self._finals = {(int(t), int(n)): obs for (t, n), obs in zip(state["places"], state["finals"], strict=True)}
        self._cut[self._head] = False  # the step there is history, but a file of the rings may have brought it

    def sample(self, rng: np.random.Generator, count: int) -> Index:
        """`count` transitions, drawn uniformly with replacement."""
        slots, envs = np.empty((2, count), np.int64)
        missing = np.arange(count)
        while len(missing):
            back = rng.integers(1, self.filled + 1, size=len(missing))
            slots[missing] = (self._head - back) % self._slots
            envs[missing] = rng.integers(self.num_env, size=len(missing))
            missing = missing[~self._usable[slots[missing], envs[missing]]]
            if self._barren >= self.filled:
                break  # all were broken: the collector is about to end the run
        return Index(slots, envs)

    def __getitem__(self, index: Index) -> Transitions:
        """The transitions at an index."""
        after = Index((index.slots + 1) % self._slots, index.envs)
        next_obs = self._observations(after)
        for i in np.flatnonzero(self._cut[index]):
            next_obs[i] = self._finals[int(index.slots[i]), int(index.envs[i])]
        return Transitions(self._observations(index), self._actions[index], self._rewards[index], next_obs,
                           self._terminated[index])

    def _observations(self, index: Index) -> np.ndarray:
        if self.stack == 1:
            return self._frames[index]
        obs = np.empty((len(index.slots), *self._frames.shape[2:], self.stack), self._frames.dtype)
        ages = self._ages[index]
        for back in range(self.stack):  # frame by frame: several times faster than a copy of a transposed array
            obs[..., -1 - back] = self._frames[(index.slots - back) % self._slots, index.envs]
            obs[ages < back, ..., -1 - back] = 0
        return obs

    def latest(self, steps: int) -> np.ndarray:
        """The newest frames [B, ...] of the observations of the B transitions of the latest steps that can be drawn."""
        slots = np.arange(self._head - min(steps, self.filled), self._head) % self._slots
        return self._frames[slots][self._usable[slots]]


class PrioritizedReplayBuffer(ReplayBuffer):
    """Draws a transition with probability p^alpha / sum p^alpha; p is the size of its last error, plus epsilon.

    New transitions have the highest priority so far, and at least 1. Stratified: the k-th of B draws comes from the
    k-th B-th of the total. Options as ReplayBuffer's.
    """

    EXTRA = 16 + 2 * 9  # two trees of a number per leaf, and one for FAN of them, and so on

    def __init__(self, *args: object, alpha: float, epsilon: float, **options: object) -> None:
        super().__init__(*args, **options)
        self.alpha, self.epsilon = alpha, epsilon
        leaves = self._slots * self.num_env
        self._sums, self._minima = SegmentTree(leaves, np.add, 0.0), SegmentTree(leaves, np.minimum, np.inf)
        self._highest = 1.0
        self._late: list[tuple[np.ndarray, np.ndarray]] = []  # leaves and priorities that the trees are to have

    def add(self, *args: object, **options: object) -> None:
        head = self._head
        super().add(*args, **options)
        lost = (head - self.steps) % self._slots  # out of reach; its frames are still there, as history of the next
        leaves = np.concatenate([slot * self.num_env + np.arange(self.num_env) for slot in (lost, head)])
        new = np.where(self._usable[head], self._highest, 0.0)
        self._late.append((leaves, np.concatenate([np.zeros(self.num_env), new])))

    def state(self) -> dict[str, Any]:
        self._catch_up()
        return super().state() | {"priorities": self._sums.leaves, "highest": self._highest}

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        self._late.clear()
        self._highest, priorities = state["highest"], state["priorities"]
        self._sums.fill(priorities)
        self._minima.fill(np.where(priorities > 0, priorities, np.inf))

    def sample(self, rng: np.random.Generator, count: int) -> Index:
        """`count` transitions, drawn by priority with replacement."""
        self._catch_up()
        if not self._sums.total:
            return super().sample(rng, count)
        mass = (np.arange(count) + rng.random(count)) * (self._sums.total / count)
        return Index(*np.divmod(self._sums.find(mass), self.num_env))

    def weights(self, index: Index, beta: float) -> np.ndarray:
        """Importance weights [B]: (N P(i))^-beta over the largest of the buffer (paper, section 3.4). float32."""
        if not self._sums.total:
            return np.ones(len(index.slots), np.float32)
        priorities = self._sums[index.slots * self.num_env + index.envs]
        return ((priorities / self._minima.total) ** -beta).astype(np.float32)

    def set_errors(self, index: Index, errors: np.ndarray) -> None:
        """Gives transitions the priorities that their errors [B] mean, but where these are not finite.

        Such errors end the run at the next row of its log, up to which there must be something to draw.
        """
        finite = np.isfinite(errors)
        priorities = (np.abs(errors[finite].astype(np.float64)) + self.epsilon) ** self.alpha
        self._highest = max(self._highest, priorities.max(initial=0.0))
        self._late.append(((index.slots * self.num_env + index.envs)[finite], priorities))

    def _catch_up(self) -> None:
        """Gives the trees what has been added or learned since the last draw, in one go."""
        if not self._late:
            return
        leaves, priorities = (np.concatenate(parts) for parts in zip(*self._late, strict=True))
        self._late.clear()
        self._sums[leaves] = priorities
        self._minima[leaves] = np.where(priorities > 0, priorities, np.inf)


class SegmentTree:
    """Numbers whose total under an operation (np.add, np.minimum) is known at any time: a set of B costs B log n.

    A node has FAN children, and at the top up to TOP nodes have no parents: few levels are faster in NumPy than few
    operations. What the nodes hold depends on the leaves alone, not on the order in which they came.
    """

    FAN, TOP = 32, 4096

    def __init__(self, leaves: int, operation: np.ufunc, neutral: float) -> None:
        self._operation = operation
        self._levels: list[np.ndarray] = []  # [rows, FAN], the leaves first; each row is the children of a node above
        while not self._levels or leaves > self.TOP:
            leaves = -(-leaves // self.FAN)
            self._levels.append(np.full((leaves, self.FAN), neutral))
        self._top = np.full(leaves, neutral)

    def __getitem__(self, leaves: np.ndarray) -> np.ndarray:
        return self.leaves[leaves]

    def __setitem__(self, nodes: np.ndarray, values: np.ndarray) -> None:
        """Of a leaf that occurs twice the last value counts."""
        for level in self._levels:
            level.reshape(-1)[nodes] = values
            nodes = nodes // self.FAN
            values = self._operation.reduce(level[nodes], axis=1)
        self._top[nodes] = values

    @property
    def leaves(self) -> np.ndarray:
        """All the numbers, and neutral ones after them."""
        return self._levels[0].reshape(-1)

    def fill(self, values: np.ndarray) -> None:
        """Gives all leaves other numbers."""
        for level in self._levels:
            level.reshape(-1)[: len(values)] = values
            values = self._operation.reduce(level, axis=1)
        self._top[:] = values

    @property
    def total(self) -> float:
        """The operation over all leaves."""
        return float(self._operation.reduce(self._top))

    def find(self, mass: np.ndarray) -> np.ndarray:
        """Of a tree of sums: the leaf in which each of the masses [B] lies, 0 <= mass < total; never an empty one."""
        ends = np.cumsum(self._top)
        mass = np.minimum(mass, np.nextafter(ends[-1], 0.0))  # rounding must not lead beyond the last one; below too
        nodes = np.searchsorted(ends, mass, side="right")
        mass = mass - np.where(nodes > 0, ends[nodes - 1], 0.0)
        each = np.arange(len(mass))
        for level in reversed(self._levels):
            ends = np.cumsum(level[nodes], axis=1)
            mass = np.minimum(mass, np.nextafter(ends[:, -1], 0.0))
            child = np.count_nonzero(ends <= mass[:, None], axis=1)
            mass = np.where(child > 0, mass - ends[each, child - 1], mass)
            nodes = nodes * self.FAN + child
        return nodes
