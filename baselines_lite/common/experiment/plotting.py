"""Learning curves as PNG files, drawn from monitor.csv."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure  # without pyplot: no display, no global state


def read_monitor(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """(steps, returns) of a monitor.csv, one element per episode: steps of all finished episodes so far, raw return."""
    with Path(path).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    lengths = np.array([int(row["l"]) for row in rows], dtype=np.int64)
    return np.cumsum(lengths), np.array([float(row["r"]) for row in rows])


def rolling_mean(values: np.ndarray, window: int) -> np.ndarray:
    """The mean of the last `window` values at each position; of as many as there are at the start."""
    sums = np.cumsum(np.insert(values, 0, 0.0))
    end = np.arange(1, len(values) + 1)
    begin = np.maximum(0, end - window)
    return (sums[end] - sums[begin]) / (end - begin)


def plot_run(monitor: str | Path, png: str | Path, title: str) -> None:
    """One run: every episode's return as a dot, the mean of the last 100 as a line."""
    steps, returns = read_monitor(monitor)
    figure, axes = _axes(title)
    axes.plot(steps, returns, ".", markersize=2, alpha=0.3, color="tab:blue")
    axes.plot(steps, rolling_mean(returns, 100), color="tab:blue")
    _save(figure, png)


def plot_curves(curves: Mapping[str, Sequence[tuple[np.ndarray, np.ndarray]]], png: str | Path, title: str) -> None:
    """Several seeds per label, each (steps, values): thin lines, and their mean as a thick one."""
    figure, axes = _axes(title)
    for number, (label, runs) in enumerate(curves.items()):
        color = f"C{number}"
        end = min(steps[-1] for steps, _ in runs)
        grid = np.linspace(max(steps[0] for steps, _ in runs), end, 200)
        lines = [np.interp(grid, steps, values) for steps, values in runs]
        for line in lines:
            axes.plot(grid, line, color=color, linewidth=0.8, alpha=0.5)
        axes.plot(grid, np.mean(lines, axis=0), color=color, linewidth=2,
                  label=f"{label} ({len(runs)} seed{'s' * (len(runs) > 1)})")
    axes.legend()
    _save(figure, png)


def _axes(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.set(title=title, xlabel="environment steps", ylabel="return, last 100 episodes")
    axes.grid(alpha=0.3)
    return figure, axes


def _save(figure: Figure, png: str | Path) -> None:
    Path(png).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(png, dpi=80)
