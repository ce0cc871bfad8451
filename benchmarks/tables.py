"""Writes the tables of READMEs and docs from the code and the results: each between two comment lines that name it.

    python benchmarks/tables.py           # brings them up to date
    python benchmarks/tables.py --check   # exit status 1 if one is not

Tables: `algorithms` in the top README, `results` in each algorithm's, `speed` and `presets` in docs. The suites' own
pages are made by report.py.
"""

from __future__ import annotations

import argparse
import functools
import json
import re
import statistics
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

from baselines_lite.common.experiment.config import RunOptions  # noqa: E402  (the path comes first)
from baselines_lite.registry import ALGORITHMS, find  # noqa: E402
from baselines_lite.runs.table import markdown  # noqa: E402
from benchmarks.report import of_kind, published, steps  # noqa: E402
from benchmarks.results import Result, everything, short  # noqa: E402
from benchmarks.run import job_of, options_of  # noqa: E402
from benchmarks.suites import SUITES, Task  # noqa: E402

MISSING = "not measured yet"
# Columns of the top README's table: where the first of these tasks is that an algorithm has a result of.
SUMMARY = {"cartpole": ("classic/cartpole", "checks/cartpole-100k", "checks/cartpole-300k"),
           "halfcheetah": ("mujoco1M/halfcheetah", "checks/halfcheetah-500k"),
           "hopper": ("mujoco1M/hopper",),
           "pong": ("atari10M/pong", "atari2.5M/pong", "checks/pong", "checks/pong-800k"),
           "breakout": ("atari10M/breakout", "atari2.5M/breakout", "checks/breakout")}


def main() -> int:
    """Runs what the flags ask for; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, say what is not up to date")
    given, stale = parser.parse_args(), []
    places = {ROOT / "README.md": {"algorithms": algorithms()}, ROOT / "docs/speed.md": {"speed": speed()},
              ROOT / "docs/presets.md": {"presets": presets()}}
    places |= {ROOT / "baselines_lite" / alg / "README.md": {"results": results(alg)} for alg in ALGORITHMS}
    for path, tables in places.items():
        text = path.read_text()
        new = text
        for name, table in tables.items():
            new = put(new, name, table)
        if new != text:
            stale.append(path)
            if not given.check:
                path.write_text(new)
    for path in stale:
        print(path.relative_to(ROOT))
    return int(given.check and bool(stale))


def put(text: str, name: str, table: str) -> str:
    """The text with the table between the comments <!-- name --> and <!-- end -->. Exits where they are missing."""
    new, count = re.subn(rf"(<!-- {name} -->\n).*?(<!-- end -->)", lambda m: f"{m[1]}\n{table}\n{m[2]}", text,
                         flags=re.S)
    if count != 1:
        sys.exit(f"no place for the table {name}: it goes between the lines <!-- {name} --> and <!-- end -->")
    return new


def number(x: float) -> str:
    """A score in a few digits."""
    return f"{x:,.0f}" if abs(x) >= 20 else f"{x:.1f}" if abs(x) >= 2 else f"{x:.2g}"


@functools.cache
def all_results() -> list[Result]:
    """Every result, read once."""
    return list(everything())


def found_of(alg: str) -> dict[str, list[Result]]:
    """An algorithm's results by `suite/task`, in the suites' order."""
    mine = {f"{suite}/{task}": [r for r in all_results() if (r.suite, r.task, r.algorithm) == (suite, task, alg)]
            for suite, tasks in SUITES.items() for task in tasks}
    return {name: some for name, some in mine.items() if some}


def results(alg: str) -> str:
    """An algorithm's results: a row per task."""
    body = []
    for name, some in found_of(alg).items():
        suite, task = name.split("/")
        asked = SUITES[suite][task]
        scores = of_kind(some, asked.by)
        goal = asked.goals.get(alg)
        commits = ", ".join(sorted({short(r.facts) for r in some})) + other_now(some, asked, alg)
        body.append([name, steps(float(asked.flags_of(alg)["num_timesteps"])), ", ".join(map(number, scores)),
                     number(scores.mean()), "" if goal is None else number(goal), commits])
    return markdown(["suite/task", "steps", "scores of the seeds", "mean", "goal", "commit"], *body)


def other_now(some: list[Result], asked: Task, alg: str) -> str:
    """Which options of a row's runs are others now, as presets change; nothing of those that did not note them."""
    now = options_of(job_of(asked, alg, 0))
    names = {name for r in some for name, value in r.facts.get("options", {}).items() if now.get(name) != value}
    return f"; other now: {', '.join(sorted(names))}" if names else ""


def algorithms() -> str:
    """All algorithms: what they are, what they can do, how well and how fast."""
    body = []
    measured = json.loads((HERE / "results" / "speed.json").read_text())
    for alg, row in ALGORITHMS.items():
        cells = [f"[{alg}](baselines_lite/{alg}/README.md)", f"{row.paper}; [equations](docs/algorithms/{alg}.md)",
                 ", ".join(row.actions), row.networks, "yes" if row.data_parallel else "no"]
        found = found_of(alg)
        for places in SUMMARY.values():
            name = next((name for name in places if name in found), None)
            suite, _, task = (name or places[0]).partition("/")
            asked = SUITES[suite][task]
            wanted = MISSING if alg in asked.algorithms else ""
            cells.append(wanted if name is None else f"{number(of_kind(found[name], asked.by).mean())} "
                         f"({steps(float(asked.flags_of(alg)['num_timesteps']))}"
                         f"{', one seed' * (len(found[name]) == 1)}{originals(asked, alg)})")
        ratios = [f"{found['ratio']:.1f} x {found['peer']} ({name.removeprefix(alg + '-')})"
                  for name, found in measured.items() if name.startswith(f"{alg}-") and found.get("target")]
        body.append([*cells, ", ".join(ratios)])
    return markdown(["`--alg`", "paper", "actions", "networks", "MPI", *SUMMARY, "speed"], *body)


def originals(task: Task, alg: str) -> str:
    """The score in the original's table of a task, of as many steps, if there is one."""
    suite = "atari" if "NoFrameskip" in task.env else ""
    scores = [float(row["mean"]) for row in published(suite, task, [alg]) if row["algorithm"] == alg
              and row["source"].startswith("openai/baselines") and row["kind"] == task.by
              and float(row["steps"]) == task.steps]
    return f"; Baselines {number(scores[0])}" if scores else ""


def presets() -> str:
    """The values of every preset: a table per algorithm, a column per preset and family of environments."""
    parts = []
    for alg in ALGORITHMS:
        module = find(alg)
        usual = {**vars(RunOptions()), **vars(module.Config())}
        columns = {f"{preset}: {family}": values for preset, rows in module.PRESETS.items()
                   for family, values in rows.items()}
        names = list(dict.fromkeys(name for values in columns.values() for name in values))
        body = [[f"`{name}`", *("" if value is MISSING else f"{value}" for value in (
            usual.get(name, MISSING), *(values.get(name, MISSING) for values in columns.values())))] for name in names]
        parts += [f"## {alg}", markdown(["option", "without preset", *columns], *body).strip()]
    return "\n\n".join(parts)


def speed() -> str:
    """What speed.py measured beside the peers: a row per workload."""
    body = []
    for name, r in json.loads((HERE / "results" / "speed.json").read_text()).items():
        if "ours_sps" in r:
            shares = {k.removeprefix("share_"): v for k, v in r["shares"].items() if v >= 0.005}
            middle = [f"{statistics.median(r[k]):,.0f}" for k in ("ours_sps", "peer_sps")]
            code, _, changes = r["commit"].partition("+")
            body.append([name, middle[0], f"{r['peer']} {middle[1]}", f"{r['ratio']:.2f}",
                         f"{r['default_ratio']:.2f}" if "default_ratio" in r else "", f"{r['target']:g}",
                         ", ".join(f"{k} {v:.0%}" for k, v in shares.items()),
                         f"{r['peak_gib']:.1f} GiB" if "peak_gib" in r else "",
                         short({"commit": code, "dirty": changes})])
    head = ["workload", "ours", "peer", "ratio", "by default", "goal", "where our time goes", "memory", "commit"]
    return markdown(head, *body)


if __name__ == "__main__":
    sys.exit(main())
