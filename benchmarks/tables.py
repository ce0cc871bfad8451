"""Writes the tables of the READMEs from the registry and the results: each between two comment lines that name it.

    python benchmarks/tables.py           # brings the READMEs up to date
    python benchmarks/tables.py --check   # exit status 1 if one is not

Tables: `algorithms` and `speed` in the top README, `results` in each algorithm's.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE))

from learn import TASKS  # noqa: E402

from baselines_lite.registry import ALGORITHMS  # noqa: E402

MISSING = "not measured yet"
SUMMARY = ("cartpole", "halfcheetah", "hopper", "pong", "breakout")  # tasks in the top README's table


def main() -> int:
    """Runs what the flags ask for; returns the exit status."""
    stale = []
    for path, tables in {ROOT / "README.md": {"algorithms": algorithms(), "speed": speed()}, **{
            ROOT / "baselines_lite" / alg / "README.md": {"results": results(alg)} for alg in ALGORITHMS}}.items():
        text = path.read_text()
        new = text
        for name, table in tables.items():
            new = put(new, name, table)
        if new != text:
            stale.append(path)
            if "--check" not in sys.argv:
                path.write_text(new)
    for path in stale:
        print(path.relative_to(ROOT))
    return int("--check" in sys.argv and bool(stale))


def put(text: str, name: str, table: str) -> str:
    """The text with the table between the comments <!-- name --> and <!-- end -->. Exits where they are missing."""
    new, count = re.subn(rf"(<!-- {name} -->\n).*?(<!-- end -->)", lambda m: f"{m[1]}\n{table}\n{m[2]}", text,
                         flags=re.S)
    if count != 1:
        sys.exit(f"no place for the table {name}: it goes between the lines <!-- {name} --> and <!-- end -->")
    return new


def rows(head: list[str], body: list[list[str]]) -> str:
    """A table in Markdown."""
    return "".join("| " + " | ".join(cells) + " |\n" for cells in (head, *body)).replace(
        "|\n", "|\n|" + "---|" * len(head) + "\n", 1)


def summary(alg: str, task: str) -> dict[str, Any] | None:
    """The result of a task; None where there is none."""
    path = HERE / "results" / alg / task / "summary.json"
    return json.loads(path.read_text()) if path.exists() else None


def number(x: float) -> str:
    """A score in a few digits."""
    return f"{x:,.0f}" if abs(x) >= 20 else f"{x:.1f}" if abs(x) >= 2 else f"{x:.2g}"


def steps(count: float) -> str:
    """A number of steps: 50k, 2.5M."""
    return f"{count / 1e6:g}M" if count >= 1e6 else f"{count / 1e3:g}k"


def short(found: dict[str, Any] | None) -> str:
    """The commit that a result was measured on."""
    return found["commit"][:7] if found else ""


def results(alg: str) -> str:
    """An algorithm's results: a row per task."""
    body = []
    for name, task in TASKS.get(alg, {}).items():
        found = summary(alg, name)
        scores = ", ".join(map(number, found["scores"])) if found else MISSING
        goal = "" if task.target is None else number(task.target)
        body.append([name, steps(task.steps), scores, number(found["mean"]) if found else "", goal, short(found)])
        for i, (when, target) in enumerate(task.milestones):
            reached = found["milestones"][i]["scores"] if found else []
            body.append([f"{name}, on the way", steps(when), ", ".join(map(number, reached)) or MISSING,
                         number(statistics.mean(reached)) if found else "", number(target), short(found)])
    return rows(["task", "steps", "scores of the seeds", "mean", "goal", "commit"], body)


def algorithms() -> str:
    """All algorithms: what they are, what they can do, how well and how fast."""
    body = []
    measured = json.loads((HERE / "results" / "speed.json").read_text())
    for alg, row in ALGORITHMS.items():
        cells = [f"[{alg}](baselines_lite/{alg}/README.md)", row.paper, ", ".join(row.actions), row.networks,
                 "yes" if row.data_parallel else "no"]
        for name in SUMMARY:
            task, found = TASKS.get(alg, {}).get(name), summary(alg, name)
            cells.append(f"{number(found['mean'])} ({steps(task.steps)})" if found else MISSING if task else "")
        ratios = [f"{found['ratio']:.1f} x {found['peer']} ({name.removeprefix(alg + '-')})"
                  for name, found in measured.items() if name.startswith(f"{alg}-") and found.get("target")]
        body.append([*cells, ", ".join(ratios)])
    return rows(["`--alg`", "paper", "actions", "networks", "MPI", *SUMMARY, "speed"], body)


def speed() -> str:
    """What speed.py measured beside the peers: a row per workload."""
    body = []
    for name, r in json.loads((HERE / "results" / "speed.json").read_text()).items():
        if "ours_sps" in r:
            shares = {k.removeprefix("share_"): v for k, v in r["shares"].items() if v >= 0.005}
            middle = [f"{statistics.median(r[k]):,.0f}" for k in ("ours_sps", "peer_sps")]
            body.append([name, middle[0], f"{r['peer']} {middle[1]}", f"{r['ratio']:.2f}", f"{r['target']:g}",
                         ", ".join(f"{k} {v:.0%}" for k, v in shares.items()),
                         f"{r['peak_gib']:.1f} GiB" if "peak_gib" in r else "", short(r)])
    return rows(["workload", "ours", "peer", "ratio", "goal", "where our time goes", "memory", "commit"], body)


if __name__ == "__main__":
    sys.exit(main())
