"""The policy as the last logged update left it, for a run that ends in the middle of another."""

from __future__ import annotations

import sys

from baselines_lite.common.networks.parameters import Snapshot
from baselines_lite.common.policies.model_file import is_sound
from baselines_lite.common.policies.policy import Policy
from baselines_lite.common.system.errors import UserError


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
