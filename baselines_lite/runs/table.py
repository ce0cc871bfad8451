"""The table of runs' results: a row per algorithm, environment and option that varies, over seeds."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from baselines_lite.common.experiment.plotting import interval

OF_ONE_CODE = ("algorithm", "env", "code")  # each algorithm has its own

Row = dict[str, Any]


def table(results: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The rows: numbers, or None where there is none. Results of different code are never in one row.

    `mean`, `lowest` and `highest` are of the seeds' scores, `low95` and `high95` Student's t interval of their mean.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for result in results:
        key = repr((sorted((k, str(v)) for k, v in result["job"].items() if k != "seed"), result["code"]["sha256"]))
        groups.setdefault(key, []).append(result)
    flags = {name: None for result in results for name in result["job"]["flags"]}
    varied = [name for name in flags if len({r["job"]["flags"].get(name) for r in results}) > 1]
    several = len({result["job"]["ranks"] for result in results}) > 1
    return [row(group, varied, several) for group in groups.values()]


def row(group: Sequence[Mapping[str, Any]], varied: Sequence[str], with_ranks: bool) -> Row:
    """The row of the results of some seeds."""
    job = group[0]["job"]
    scores = [result["score"] for result in group if result["score"] is not None]
    evaluations = [result["evaluation"]["mean"] for result in group if result["evaluation"]]
    speeds = [result["steps_per_second"] for result in group if result["steps_per_second"]]
    span = interval(np.array(scores))
    low, high = (None, None) if span is None else map(float, span)
    return {
        "algorithm": job["alg"], "env": job["env"], **({"ranks": job["ranks"]} if with_ranks else {}),
        **{name: job["flags"].get(name) for name in varied},
        "seeds": len(group), "mean": mean(scores), "lowest": min(scores, default=None),
        "highest": max(scores, default=None), "low95": low, "high95": high, "evaluation": mean(evaluations),
        "steps/s": mean(speeds), "code": group[0]["code"]["sha256"][:8]}


def mean(values: Sequence[float]) -> float | None:
    """The mean, None of nothing."""
    return statistics.fmean(values) if values else None


def texts(rows: Sequence[Row]) -> list[list[str]]:
    """The table as people read it: a line of names, then one for each row. Columns that say nothing are left out."""
    names = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    if len({(row["algorithm"], row["env"]) for row in rows}) == len({tuple(map(row.get, OF_ONE_CODE)) for row in rows}):
        names.remove("code")
    return [names, *([cell(row[name]) for name in names] for row in rows)]


def cell(value: Any) -> str:
    """A value as people read it."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return "" if value is None else str(value)


def write_table(results: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Writes table.csv, whole numbers and all columns, and table.md."""
    rows = table(results)
    with (folder / "table.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    (folder / "table.md").write_text(markdown(*texts(rows)), encoding="utf-8")


def markdown(head: Sequence[str], *lines: Sequence[str]) -> str:
    """A table in Markdown."""
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, ["---"] * len(head), *lines))


def print_table(results: Sequence[Mapping[str, Any]]) -> None:
    """Prints the table in columns."""
    lines = texts(table(results))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    print()
    for line in lines:
        print("  ".join(map(str.ljust, line, widths)).rstrip())
    print(flush=True)
