"""Learning curves: what monitor.csv says, smoothing, means over runs, and pictures of them."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure  # without pyplot: no display, no global state
from matplotlib.ticker import EngFormatter
from scipy.special import stdtrit  # as scipy.stats.t.ppf, without the second that scipy.stats takes to load

from baselines_lite.common.system.errors import counted

Line: TypeAlias = tuple[np.ndarray, np.ndarray]  # (x [E], y [E]) of one run, x never falling

# Okabe and Ito 2008, Color universal design: told apart also by who confuses red and green. Yellow is left out: it is
# hardly seen on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("solid", "dash", "dot", "dashdot")  # Plotly's names; Matplotlib has its own
BANDS = ("ci", "std", "minmax", "none")
LEAST_FOR_CI = 5  # runs: of fewer an interval says more of its assumptions than of them
POINTS = 200  # of a drawn line
MONITOR = ("r", "l", "t")  # columns of a monitor file: return, length, seconds


def header_of(path: Path) -> list[str]:
    """The names of a CSV file's columns; none where it has no whole line that is no comment (#)."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        line = next((line for line in file if line.strip() and not line.startswith("#")), "")
    return next(csv.reader([line]), []) if line.endswith("\n") else []


def read_columns(path: Path, names: Sequence[str]) -> np.ndarray:
    """These columns [rows, names] of a CSV file; NaN where a cell is empty. No rows where it lacks a column.

    What a killed writer leaves, or one that is writing, is passed over: a last line without an end, cells that are no
    numbers. Comments (#) are no rows.
    """
    lines = path.read_text(encoding="utf-8-sig", errors="replace").split("\n")[:-1]
    lines = [line for line in lines if line and not line.startswith("#")]
    header, found = next(csv.reader(lines), []), []
    if len(lines) > 1 and set(names) <= set(header):
        columns = [header.index(name) for name in names]
        with contextlib.suppress(ValueError):  # a cell that is no number, or none: see below
            return np.loadtxt(lines[1:], delimiter=",", quotechar='"', comments=None, usecols=columns, ndmin=2)
        for row in csv.reader(lines[1:]):
            with contextlib.suppress(ValueError, IndexError):
                found.append([float(row[column] or "nan") for column in columns])
    return np.array(found, dtype=np.float64).reshape(-1, len(names))


def finite(rows: np.ndarray) -> np.ndarray:
    """The rows in which every number is finite."""
    return rows[np.isfinite(rows).all(axis=1)]


def read_monitor(path: Path) -> tuple[dict[str, Any], np.ndarray]:
    """The header of a monitor file, {} where it has none, and (return, length, seconds) [E, 3] of its episodes.

    The format is that of Baselines' bench/monitor.py, and of Stable-Baselines3's common/monitor.py, which has it from
    there: a JSON comment with t_start and env_id, then columns r, l, t and perhaps others.
    """
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        first = file.readline()
    header = None
    with contextlib.suppress(ValueError):
        header = json.loads(first.removeprefix("#"))
    return header if isinstance(header, dict) else {}, finite(read_columns(path, MONITOR))


def steps_of(lengths: np.ndarray, progress: Path) -> np.ndarray:
    """The steps, over all ranks and environments, at which episodes of these lengths [E] ended.

    Those that progress.csv counts, shared out evenly among the episodes of one row; episodes after its last row are
    left out, [at most E]. Where it says no such thing, those of all finished episodes so far, which leaves out the
    episodes still under way, and is what Baselines and Stable-Baselines3 draw.
    """
    rows = finite(read_columns(progress, ("episodes", "total_timesteps"))) if progress.is_file() else ()
    if not len(rows):
        return np.cumsum(lengths)
    episodes, steps = np.vstack([[0.0, 0.0], rows]).T
    count = np.arange(1, 1 + min(len(lengths), int(episodes[-1])))
    row = np.searchsorted(episodes, count)  # the first that has counted it
    share = (count - episodes[row - 1]) / (episodes[row] - episodes[row - 1])
    return steps[row - 1] + share * (steps[row] - steps[row - 1])


def rolling_mean(values: np.ndarray, window: int) -> np.ndarray:
    """The mean of the last `window` values at each position; of as many as there are at the start."""
    sums = np.cumsum(np.insert(values, 0, 0.0))
    end = np.arange(1, len(values) + 1)
    begin = np.maximum(0, end - window)
    return (sums[end] - sums[begin]) / (end - begin)


def interval(values: np.ndarray, least: int = LEAST_FOR_CI) -> tuple[np.ndarray, np.ndarray] | None:
    """Student's 95% interval (low, high) of the mean of values over their first axis; None of fewer than `least`."""
    count = len(values)
    if count < least:
        return None
    reach = stdtrit(count - 1, 0.975) * np.std(values, axis=0, ddof=1) / math.sqrt(count)
    return np.mean(values, axis=0) - reach, np.mean(values, axis=0) + reach


@dataclasses.dataclass(frozen=True)
class Average:
    """The mean of several runs at x [G], with a band [G] or without; G is 0 where no x is in all of them."""

    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None


def average(lines: Sequence[Line], band: str = "none") -> Average:
    """The mean of runs from where the last of them begins to where the first of them ends.

    Bands: `ci` is Student's 95% interval of the mean, from five runs on; `std` one standard deviation to either side;
    `minmax` the range.
    """
    start, end = max(x[0] for x, _ in lines), min(x[-1] for x, _ in lines)
    grid = np.linspace(start, end, POINTS) if start <= end else np.empty(0)
    values = np.stack([np.interp(grid, x, y) for x, y in lines])
    mean, count = values.mean(axis=0), len(values)
    if band == "minmax" and count > 1:
        return Average(grid, mean, values.min(axis=0), values.max(axis=0))
    if band == "std" and count > 1:
        return Average(grid, mean, mean - values.std(axis=0, ddof=1), mean + values.std(axis=0, ddof=1))
    return Average(grid, mean, *((band == "ci" and interval(values)) or ()))


def single_lines(lines: Sequence[Line], band: str) -> list[Line]:
    """The runs, as short lines, that are drawn beside their mean: those of which an interval would be too few."""
    if band != "ci" or not 1 < len(lines) < LEAST_FOR_CI:
        return []
    grids = [np.linspace(x[0], x[-1], POINTS) for x, _ in lines]
    return [(grid, np.interp(grid, x, y)) for grid, (x, y) in zip(grids, lines, strict=True)]


def looks(labels: Iterable[str]) -> dict[str, tuple[str, str]]:
    """A colour and a dash for each label, in alphabetical order: the same in every panel that has them."""
    return {label: (COLORS[i % len(COLORS)], DASHES[i // len(COLORS) % len(DASHES)])
            for i, label in enumerate(sorted(set(labels)))}


def plot_run(folder: Path, png: str | Path, title: str) -> None:
    """One run's log: every episode's return as a dot, the mean of the last 100 as a line."""
    _, episodes = read_monitor(folder / "monitor.csv")
    steps = steps_of(episodes[:, 1], folder / "progress.csv")
    returns = episodes[: len(steps), 0]
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = _dressed(figure.add_subplot(), title)
    axes.plot(steps, returns, ".", markersize=2, alpha=0.3, color=COLORS[0])
    axes.plot(steps, rolling_mean(returns, 100), color=COLORS[0])
    save(figure, png)


def plot_curves(panels: Mapping[str, Mapping[str, Sequence[Line]]], png: str | Path, *, band: str = "ci",
                window: int = 100, xlabel: str = "environment steps") -> None:
    """A panel per title, in it for each label the mean of its runs, with a band, or thin lines where they are few.

    Raises OSError where the picture cannot be written, ValueError for a format that Matplotlib does not know.
    """
    look = looks(label for curves in panels.values() for label in curves)
    columns = min(3, math.ceil(math.sqrt(len(panels))))
    rows = math.ceil(len(panels) / columns)
    size = (6, 3.6) if len(panels) == 1 else (4.8 * columns, 3.4 * rows)
    figure, drawn, counts = Figure(figsize=size, layout="constrained"), {}, {}
    for place, (title, curves) in enumerate(panels.items(), 1):
        axes = _dressed(figure.add_subplot(rows, columns, place), title, xlabel, window)
        for label, lines in curves.items():
            color, dash = look[label]
            dash = {"dash": "dashed", "dot": "dotted"}.get(dash, dash)
            for x, y in single_lines(lines, band):
                axes.plot(x, y, color=color, linestyle=dash, linewidth=0.8, alpha=0.5)
            mean = average(lines, band)
            if mean.low is not None:
                axes.fill_between(mean.x, mean.low, mean.high, color=color, alpha=0.2, linewidth=0)
            drawn[label], = axes.plot(mean.x, mean.mean, color=color, linestyle=dash, linewidth=2)
            counts.setdefault(label, []).append(len(lines))
    labels = sorted(drawn)
    width = max(map(len, labels)) + 14  # letters of an entry, of which an inch has 12
    figure.legend([drawn[label] for label in labels], [f"{label} ({_runs(counts[label])})" for label in labels],
                  loc="outside lower center", fontsize="small", ncols=max(1, int(12 * size[0] / width)))
    save(figure, png)


def _dressed(axes: Axes, title: str, xlabel: str = "environment steps", window: int = 100) -> Axes:
    axes.set(title=title, xlabel=xlabel, ylabel="return" if window == 1 else f"return, last {window} episodes")
    axes.xaxis.set_major_formatter(EngFormatter(sep="") if "steps" in xlabel else "{x:g}")
    axes.grid(alpha=0.3)
    return axes


def _runs(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return counted(low, "run") if low == high else f"{low} to {high} runs"


def save(figure: Figure, png: str | Path) -> None:
    """Writes a picture, and the folder for it."""
    Path(png).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(png, dpi=100)
