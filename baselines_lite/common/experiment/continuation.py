"""A run's checkpoints: what belongs to them, when they are written, and the one from which a run goes on.

And the policy as the last logged update left it, for a run that ends in the middle of another.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from baselines_lite.common.envs.continued import Continued
from baselines_lite.common.experiment.checkpoints import Checkpoint, Checkpoints
from baselines_lite.common.experiment.config import RunOptions
from baselines_lite.common.networks.flat import get_flat
from baselines_lite.common.networks.parameters import Snapshot, trainable
from baselines_lite.common.policies.model_file import is_sound
from baselines_lite.common.policies.policy import Policy
from baselines_lite.common.system.errors import UserError
from baselines_lite.common.system.mpi import Comm
from baselines_lite.common.system.state import Stateful, births, left_out, not_finite, state_of
from baselines_lite.common.system.watchdog import paused

BEST = "best.safetensors"  # the policy with the highest mean return, of an evaluation or at a checkpoint


class Continuation:
    """What belongs to a run's checkpoints, when they are written, and the one from which a run goes on.

    folder: where they are; None: the run has none. All methods are collective.
    """

    def __init__(self, comm: Comm, folder: Path | None, run: RunOptions, environments: Continued, every: int) -> None:
        self.comm, self.every, self._pause = comm, run.checkpoint_interval or every, run.checkpoint_seconds
        self.checkpoints = None if folder is None else Checkpoints(folder, comm, run.keep_checkpoints)
        self.kept: dict[str, Any] = {"environments": environments}
        self.source: Checkpoint | None = None
        self.best: float | None = None  # mean return of the best policy that was kept
        self._written, self._begun = time.monotonic(), births()

    def go_on(self, say: Callable[[str], None]) -> dict[str, Any]:
        """Finds the newest checkpoint that is whole and brings the environments to where they were; its facts.

        Raises UserError where there is none.
        """
        environments = self.kept["environments"]
        for found in self.checkpoints.found():
            exact = self.comm.together(lambda found=found: found.restore("environments", environments))
            if all(self.comm.gather(exact)):
                self.source, self.best = found, found.facts["best"]
                self.checkpoints.go_on_from(found)
                return found.facts
            if self.comm.rank == 0:
                say(f"after update {found.facts['nupdates']} the environments do not come back to where they were: an "
                    "earlier checkpoint is taken")
        raise self.comm.shared(UserError(f"no checkpoint in {str(self.checkpoints.folder)!r} is whole"))

    def keep(self, things: dict[str, Any]) -> None:
        """Takes in objects by name, as they were where the run goes on. Raises TypeError for what cannot be kept."""
        for thing in things.values():
            state_of(thing)
        self.kept |= things
        if self.source is not None:
            self.comm.together(lambda: [self.source.restore(name, thing) for name, thing in things.items()])

    def forgotten(self, loop: Mapping[str, Any]) -> list[str]:
        """What was made since and nobody keeps, although it has a state: where the run goes on, it is made anew.

        `loop` are the local variables of the training loop.
        """
        loop = {name: trainable(value) if isinstance(value, tf.Module) and not isinstance(value, Stateful) else value
                for name, value in loop.items()}
        return left_out(self.kept, self._begun, loop)

    def check(self, nupdates: int, loss: str | None, everything: bool) -> None:
        """Raises UserError where parameters are not finite, RuntimeError where they are not the same on all ranks.

        With `everything` also where another number of what is kept is not finite, beside environments and buffers.
        `loss` is the name of a figure that is not, which says more than the parameters do.
        """
        theta = get_flat(self.kept["policy"].trainable_variables)
        self.comm.check_synced(theta)
        wrong = None if np.isfinite(theta).all() else loss or "a parameter"
        if everything and wrong is None:
            wrong = not_finite({name: state_of(thing) for name, thing in self.kept.items()
                                if name != "environments" and not hasattr(thing, "rings")})
        if wrong is not None:
            raise UserError(f"after update {nupdates} {wrong} is not finite: an observation was not, or the learning "
                            "rate is too high")

    @property
    def rested(self) -> bool:
        """Whether this rank's last checkpoint was long enough ago."""
        return time.monotonic() - self._written >= self._pause

    def keep_best(self, mean: float | None) -> None:
        """Saves the policy beside the log if its mean return is the highest so far; the first of equal ones is.

        Where it cannot be saved, that is told and the run goes on.
        """
        if self.checkpoints is None or mean is None or (self.best is not None and mean <= self.best):
            return
        self.best, path = mean, self.checkpoints.folder.parent / BEST
        try:
            with paused():
                self.comm.together(lambda: self.kept["policy"].save(str(path)), root_only=True)
        except UserError as problem:
            if self.comm.rank == 0:
                print(f"the best policy so far is not kept: {problem}; the run goes on", file=sys.stderr, flush=True)

    def write(self, nupdates: int, facts: Callable[[], dict[str, Any]]) -> float:
        """Writes a checkpoint; the seconds that it took."""
        if self.checkpoints is None:
            return 0.0
        start = time.monotonic()
        with paused():
            self.checkpoints.write(nupdates, lambda: {"best": self.best, **facts()}, self.kept)
        self._written = time.monotonic()
        return self._written - start


class LastLogged:
    """A policy's weights and statistics at the last row of progress.csv, for the file `path`. None: nothing is kept."""

    def __init__(self, policy: Policy, path: str | None) -> None:
        self._policy, self._path = policy, path
        self._weights: Snapshot | None = None

    def note(self, steps: int) -> None:
        """The row of an update is due, which is whole, after that many steps."""
        if self._path is None:
            return
        self._weights = self._weights or Snapshot(self._policy.variables)
        self._steps, self._statistics = steps, self._policy.normalize.statistics()
        self._weights.take()

    def save(self) -> None:
        """Makes the policy what it was then, and saves it if it is sound; says so, or what went wrong."""
        if self._weights is None:
            return
        self._weights.restore()
        self._policy.normalize.load(self._statistics)
        if not is_sound(self._policy):
            return
        try:
            self._policy.save(self._path)
        except UserError as problem:
            print(problem, file=sys.stderr, flush=True)
        else:
            print(f"the policy after {self._steps:,} steps, the last logged update, is saved: {self._path}", flush=True)
