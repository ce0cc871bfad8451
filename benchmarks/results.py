"""Results of the suites, one per run, as they lie in results/SUITE/TASK/ALGORITHM/.

    seed0.json   the run's command, code and time, and its scores
    seed0.csv    its curve: total_timesteps, hours, return (mean of the last 100 episodes), at most 200 rows
    seed0-evaluations.csv   its evaluations while it trained: total_timesteps, mean
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.integrate import trapezoid

from baselines_lite.common.experiment.plotting import rolling_mean
from baselines_lite.common.system.errors import UserError
from baselines_lite.runs.runner import write_json

RESULTS = Path(__file__).resolve().parent / "results"
POINTS = 200  # of a curve
WINDOW = 100  # episodes
# Scores by name, each with the words of a table's head.
KINDS = {"last100": "last 100 episodes of training", "evaluation": "last evaluation",
         "maximum": "maximum of evaluations", "training": "mean over all training"}


def in_a_sentence(main: Callable[..., int]) -> Callable[..., int]:
    """A program whose UserError is a sentence on stderr, and exit status 2."""

    @functools.wraps(main)
    def program(arguments: Sequence[str] | None = None) -> int:
        try:
            return main(arguments)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2

    return program


@dataclasses.dataclass(frozen=True)
class Result:
    """A run that has ended. `scores` has a number for each of KINDS that the run gives; `curve` is [3, points]."""

    suite: str
    task: str
    algorithm: str
    seed: int
    facts: dict[str, Any]  # command, code, commit, dirty, seconds, steps, versions
    scores: dict[str, float]
    curve: np.ndarray
    evaluations: np.ndarray  # [n, 2]: steps, mean

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return RESULTS / self.suite / self.task / self.algorithm

    @property
    def area(self) -> float:
        """The area under the curve by its length: the mean over steps, not over episodes."""
        steps, _, values = self.curve
        return float(trapezoid(values, steps) / (steps[-1] - steps[0])) if len(steps) > 1 else float(values[0])

    def write(self) -> None:
        """Writes the three files, last the one by which the result is there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        table(self.folder / f"seed{self.seed}.csv", ("total_timesteps", "hours", "return"), self.curve.T)
        if len(self.evaluations):
            table(self.folder / f"seed{self.seed}-evaluations.csv", ("total_timesteps", "mean"), self.evaluations)
        write_json(self.folder / f"seed{self.seed}.json", {**self.facts, "scores": self.scores, "area": self.area})


def short(code: Mapping[str, Any]) -> str:
    """The beginning of a commit, with + where there were changes that no commit has; `none` of a tree without one."""
    return "none" if code["commit"] is None else code["commit"][:7] + "+" * bool(code.get("dirty"))


def table(path: Path, head: tuple[str, ...], rows: np.ndarray) -> None:
    """Writes numbers, in six digits, below a head."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        writer.writerows([int(x) if np.isfinite(x) and x == int(x) else f"{x:.6g}" for x in row] for row in rows)


def scores_of(returns: np.ndarray, evaluations: np.ndarray) -> dict[str, float]:
    """The scores of a run whose training episodes had these returns, in their order."""
    found = {"last100": float(returns[-WINDOW:].mean()), "training": float(returns.mean())}
    if len(evaluations):
        found |= {"evaluation": float(evaluations[-1, 1]), "maximum": float(evaluations[:, 1].max())}
    return found


def curve_of(steps: np.ndarray, hours: np.ndarray, returns: np.ndarray) -> np.ndarray:
    """Of a run's episodes at most POINTS points, evenly over the steps: [steps, hours, mean of the last 100]."""
    means = rolling_mean(returns, WINDOW)
    wanted = np.linspace(steps[0], steps[-1], POINTS)
    rows = np.unique(np.searchsorted(steps, wanted).clip(0, len(steps) - 1))
    return np.stack([steps[rows].astype(float), hours[rows], means[rows]])


def read(path: Path) -> Result:
    """The result that a seed's JSON file stands for."""
    more = path.with_name(f"{path.stem}-evaluations.csv")
    try:
        facts = json.loads(path.read_text())
        scores = facts.pop("scores")
        curve = np.loadtxt(path.with_suffix(".csv"), delimiter=",", skiprows=1, ndmin=2).T
        evaluations = np.loadtxt(more, delimiter=",", skiprows=1, ndmin=2) if more.exists() else np.empty((0, 2))
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise UserError(f"{str(path)!r} is no result of a run: {error}") from None
    facts.pop("area", None)
    suite, task, algorithm = path.parts[-4:-1]
    return Result(suite, task, algorithm, int(path.stem.removeprefix("seed")), facts, scores, curve, evaluations)


def everything(folder: Path = RESULTS) -> Iterator[Result]:
    """All results, in the order of their paths, seeds by number."""
    paths = folder.glob("*/*/*/seed*.json")
    for path in sorted(paths, key=lambda p: (p.parts[-4:-1], int(p.stem.removeprefix("seed")))):
        yield read(path)
