"""Tables, pictures and a page from the results' files alone, in less than a minute.

    python -m benchmarks.report            # results/README.md, a page per suite, results/page.html
    python -m benchmarks.report --check    # exit status 1 if a page that is committed is not what the files give

Each kind of score stands in a column of its own and is compared with published ones of its own kind only: of the last
100 episodes of training, the last evaluation, the maximum of evaluations, the mean over all training.
"""

from __future__ import annotations

import argparse
import csv
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from baselines_lite.common.experiment.plotting import LEAST_FOR_CI, interval, looks, plot_curves, save
from baselines_lite.common.system.errors import UserError
from baselines_lite.runs.page import drawn, fill
from baselines_lite.runs.table import markdown
from benchmarks.results import KINDS, RESULTS, Result, everything, in_a_sentence, short
from benchmarks.suites import SUITES, Task

HERE = Path(__file__).resolve().parent
ACROSS = 3  # seeds, from which on there are figures across tasks
RESAMPLES = 2000

Runs = Mapping[str, Mapping[str, Sequence[Result]]]  # by task and algorithm


@in_a_sentence
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, say what is not up to date")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where they lie")
    given = parser.parse_args(arguments)
    found = list(everything(given.results))
    if not found:
        raise UserError(f"there are no results in {str(given.results)!r}")
    suites = {name: by_task([r for r in found if r.suite == name]) for name in SUITES}
    suites = {name: runs for name, runs in suites.items() if runs}
    pages = {given.results / "README.md": overview(suites)}
    pages |= {given.results / name / "README.md": page(name, runs) for name, runs in suites.items()}
    if given.check:
        stale = [path for path, text in pages.items() if not path.exists() or path.read_text() != text]
        print("\n".join(map(str, stale)), end="\n" * bool(stale))
        return int(bool(stale))
    for path, text in pages.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name, runs in suites.items():
        draw_curves(name, runs, given.results / name / "curves.png")
        draw_scores(name, runs, given.results / name / "scores.png")
        if scores := normalised(name, runs):
            draw_profile(scores, given.results / name / "profile.png")
    (given.results / "page.html").write_text(interactive(suites), encoding="utf-8")
    return 0


def by_task(results: Iterable[Result]) -> dict[str, dict[str, list[Result]]]:
    """Results by task and algorithm."""
    runs: dict[str, dict[str, list[Result]]] = {}
    for r in results:
        runs.setdefault(r.task, {}).setdefault(r.algorithm, []).append(r)
    return runs


def of_kind(results: Sequence[Result], kind: str) -> np.ndarray:
    """The scores of a kind of some seeds; empty where one of them has none."""
    found = [r.scores.get(kind) for r in results]
    return np.array([] if None in found else found, float)


def number(x: float) -> str:
    """A score in a few digits."""
    return f"{x:,.0f}" if abs(x) >= 1000 else f"{x:.1f}" if abs(x) >= 2 else f"{x:.2f}"


def cell(scores: np.ndarray) -> str:
    """Mean and interval; of fewer than five seeds mean and all seeds."""
    if not len(scores):
        return ""
    span = interval(scores)
    rest = ", ".join(map(number, scores)) if span is None else f"{number(span[0])} to {number(span[1])}"
    return number(scores.mean()) + (f" ({rest})" if len(scores) > 1 else "")


def title(suite: str, task: str) -> str:
    """What a task of a suite is called: its environment, and its own name where others have that environment too."""
    env = SUITES[suite][task].env
    shared = sum(other.env == env for other in SUITES[suite].values()) > 1
    name = env.rpartition(":")[2]
    return f"{task}: {name}" if shared else name


def steps(count: float) -> str:
    """A number of steps: 50k, 2.5M."""
    return f"{count / 1e6:g}M" if count >= 1e6 else f"{count / 1e3:g}k"


def page(suite: str, runs: Runs) -> str:
    """A suite's page."""
    text = [f"# {suite}", f"Made by `python -m benchmarks.report` from the files in this folder. {HOW}",
            "![Curves](curves.png)", "![Scores of each seed](scores.png)", lacking(suite, runs)]
    if scores := normalised(suite, runs):
        text += ["## Across tasks", across(suite, scores), "![Performance profile](profile.png)"]
    for name, task in SUITES[suite].items():
        if name in runs:
            text += [f"## {title(suite, name)}, {steps(task.steps)} steps", ours(runs[name]),
                     theirs(suite, task, runs[name])]
    return "\n\n".join(part.strip() for part in text if part) + "\n"


def lacking(suite: str, runs: Runs) -> str:
    """Which algorithms of a suite's tasks have no result: tasks that lack the same ones together."""
    found: dict[str, list[str]] = {}
    for name, task in SUITES[suite].items():
        none = [alg for alg in task.algorithms if alg not in runs.get(name, {})]
        if none:
            found.setdefault("all" if len(none) == len(task.algorithms) else ", ".join(none), []).append(name)
    parts = "; ".join(f"{algs} on {', '.join(names)}" for algs, names in found.items())
    return f"Not measured yet: {parts}." if parts else ""


HOW = (f"Means of seeds; in brackets Student's 95% interval from {LEAST_FOR_CI} seeds on, of fewer all seeds. Returns "
       "are raw ones. *Evaluation*: of the policy apart from training, some twenty times in a run, of ten episodes "
       "(identities and sequences 100, Pendulum as a check 20) with the most probable actions (games, identities, "
       "sequences: drawn ones). *Area*: the curve's mean over steps. The environments' versions are those named; "
       "published scores are of others, named with them where their source names one.")


def ours(runs: Mapping[str, Sequence[Result]]) -> str:
    """Our results of a task."""
    body = []
    for alg, results in runs.items():
        cells = [cell(of_kind(results, kind)) for kind in KINDS]
        seconds = [r.facts["seconds"] for r in results]
        hours = "" if None in seconds else f"{np.mean(seconds) / 3600:.2f}"
        commits = ", ".join(sorted({short(r.facts) for r in results})) + other_versions(results)
        body.append([alg, str(len(results)), *cells, number(np.mean([r.area for r in results])), hours, commits])
    return markdown(["algorithm", "seeds", *KINDS.values(), "area", "hours a run", "commit"], *body)


def other_versions(results: Sequence[Result]) -> str:
    """Which packages were not of one version in all seeds of a row; nothing of runs that did not note them."""
    noted = [found for r in results if (found := r.facts.get("versions"))]
    names = {name for found in noted for name in found if any(other.get(name) != found[name] for other in noted)}
    return f"; of several versions: {', '.join(sorted(names))}" if names else ""


def published(suite: str, task: Task, algorithms: Iterable[str]) -> list[dict[str, str]]:
    """Published scores of a task, of about as many steps or more, by algorithms like these."""
    known = {"ppo1": "ppo2"}
    wanted = {known.get(alg, alg) for alg in algorithms}
    with (HERE / "published.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["env"] == task.env and row["algorithm"] in wanted
                and (suite.startswith("atari") == row["suite"].startswith("atari"))
                and 0.5 * task.steps <= float(row["steps"]) <= 5 * task.steps]


def theirs(suite: str, task: Task, algorithms: Iterable[str]) -> str:
    """Published scores of a task, by kind."""
    body = [[KINDS[kind], row["their_algorithm"],
             number(float(row["mean"])) + (f" ± {number(float(row['std']))}" if row["std"] else ""),
             steps(float(row["steps"])), row["their_env"], row["metric"].replace("|", "/"), row["source"]]
            for kind in KINDS for row in published(suite, task, algorithms) if row["kind"] == kind]
    if not body:
        return ""
    head = ["compares with", "whose", "score", "steps", "environment", "metric, in their words", "source"]
    return f"<details><summary>Published</summary>\n\n{markdown(head, *body)}\n</details>"


def normalised(suite: str, runs: Runs) -> dict[str, np.ndarray]:
    """Last-100 scores [seeds, tasks] on the scale from random actions (0) to the reference (1), by algorithm.

    Of the tasks that all of these algorithms have with at least three seeds. None where those are fewer than two.
    """
    scaled = [name for name, task in SUITES[suite].items() if task.reference is not None and name in runs]
    enough = {alg: {n for n in scaled if len(runs[n].get(alg, ())) >= ACROSS} for n in scaled for alg in runs[n]}
    most = max(map(len, enough.values()), default=0)
    chosen = sorted(alg for alg, names in enough.items() if len(names) == most)
    names = [n for n in scaled if all(n in enough[alg] for alg in chosen)]
    if len(names) < 2:
        return {}
    found = {}
    for alg in chosen:
        seeds = min(len(runs[n][alg]) for n in names)
        columns = [SUITES[suite][n].normalised(of_kind(runs[n][alg], "last100")[:seeds]) for n in names]
        found[alg] = np.stack(columns, axis=1)
    return found


def across(suite: str, scores: Mapping[str, np.ndarray]) -> str:
    """Interquartile mean and mean of normalised scores, with stratified bootstrap intervals (Agarwal et al. 2021)."""
    from rliable import library, metrics

    def aggregate(x: np.ndarray) -> np.ndarray:
        return np.array([metrics.aggregate_iqm(x), metrics.aggregate_mean(x), metrics.aggregate_optimality_gap(x)])

    np.random.seed(0)  # rliable draws from NumPy's global stream, whatever it is given
    points, spans = library.get_interval_estimates(dict(scores), aggregate, reps=RESAMPLES)
    body = [[alg, f"{len(x)} x {x.shape[1]}",
             *(f"{point:.2f} ({low:.2f} to {high:.2f})" for point, low, high in zip(points[alg], *spans[alg]))]
            for alg, x in scores.items()]
    words = ("Last 100 episodes, 0: random actions, 1: the reference in `benchmarks/suites.py`"
             + (", a human" if suite.startswith("atari") else "")
             + ". Of the algorithms that have the most tasks, and of each task as many of the first seeds as the task "
             f"with the fewest has; in brackets 95% of {RESAMPLES:,} stratified bootstrap resamples. The optimality "
             "gap, what runs lack to 1, is better the lower it is.")
    head = ["algorithm", "seeds x tasks", "interquartile mean", "mean", "optimality gap"]
    return f"{words}\n\n{markdown(head, *body)}"


def overview(suites: Mapping[str, Runs]) -> str:
    """The page of all suites: a table each, of the first kind of score."""
    text = ["# Results", "Made by `python -m benchmarks.report` from the files in these folders; `page.html`, which it "
            "writes too, shows curves, seeds and commands without network. Scores here are mean returns of the last "
            f"100 episodes of training, or of the last evaluation where that is what a check asks for. {HOW}"]
    for name, runs in suites.items():
        algorithms = list(dict.fromkeys(alg for task in SUITES[name] for alg in runs.get(task, {})))
        body = [[f"{title(name, key)} ({steps(task.steps)})", *(cell(of_kind(runs[key].get(alg, ()), task.by))
                                                                for alg in algorithms)]
                for key, task in SUITES[name].items() if key in runs]
        text += [f"## [{name}]({name}/README.md)", markdown(["task", *algorithms], *body)]
    return "\n\n".join(part.strip() for part in text) + "\n"


def draw_curves(suite: str, runs: Runs, png: Path) -> None:
    """Mean curves, with intervals from five seeds on, else with each seed's."""
    plot_curves({title(suite, name): {alg: [(r.curve[0], r.curve[2]) for r in own] for alg, own in runs[name].items()}
                 for name in SUITES[suite] if name in runs}, png)


def draw_scores(suite: str, runs: Runs, png: Path) -> None:
    """Each seed's score as a point, and mean and interval."""
    tasks = SUITES[suite]
    names = [name for name in tasks if name in runs]
    wide = min(3, len(names))
    high = -(-len(names) // wide)
    figure = Figure(figsize=(4.8 * wide, (0.8 + 0.3 * max(map(len, runs.values()))) * high), layout="constrained")
    look = looks(alg for by_alg in runs.values() for alg in by_alg)
    for place, name in enumerate(names, 1):
        axes = figure.add_subplot(high, wide, place)
        for row, (alg, results) in enumerate(runs[name].items()):
            scores, color = of_kind(results, tasks[name].by), look[alg][0]
            if not len(scores):
                continue
            axes.plot(scores, np.full(len(scores), row), "o", color=color, markersize=4, alpha=0.5)
            if span := interval(scores):
                axes.plot(span, (row, row), color=color, linewidth=2)
            axes.plot(scores.mean(), row, "|", color=color, markersize=12, markeredgewidth=2)
        axes.set(title=title(suite, name), xlabel=KINDS[tasks[name].by], yticks=range(len(runs[name])),
                 yticklabels=list(runs[name]), ylim=(len(runs[name]) - 0.5, -0.5))
        axes.grid(alpha=0.3)
    save(figure, png)


def draw_profile(scores: Mapping[str, np.ndarray], png: Path) -> None:
    """The fraction of runs with more than each normalised score (Agarwal et al. 2021)."""
    from rliable import library

    top = max(1.0, max(np.quantile(x, 0.95) for x in scores.values()))
    taus = np.linspace(min(0.0, min(x.min() for x in scores.values())), top, 101)
    np.random.seed(0)  # as in `across`
    lines, spans = library.create_performance_profile(dict(scores), taus, reps=RESAMPLES)
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes, look = figure.add_subplot(), looks(scores)
    for alg, line in lines.items():
        axes.plot(taus, line, color=look[alg][0], label=alg)
        axes.fill_between(taus, *spans[alg], color=look[alg][0], alpha=0.15, linewidth=0)
    axes.set(xlabel="normalised score", ylabel="fraction of runs above it")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    save(figure, png)


def interactive(suites: Mapping[str, Runs]) -> str:
    """A page that needs no network, to choose suite, task and algorithms in."""
    curves = []
    for name, runs in suites.items():
        look = looks(alg for by_alg in runs.values() for alg in by_alg)
        curves += [{"suite": name, "task": title(name, task), "label": alg, "color": look[alg][0],
                    "dash": look[alg][1], "runs": len(results), **over_axes(results),
                    "seeds": [seed(r) for r in results]}
                   for task, by_alg in runs.items() for alg, results in by_alg.items()]
    return fill((HERE / "page.html").read_text(), {"curves": curves, "kinds": KINDS})


def over_axes(results: Sequence[Result]) -> dict[str, Any]:
    """What the page draws of the seeds of an algorithm on a task, by axis; None where one of them has no such line."""
    lines = {"steps": [(r.curve[0], r.curve[2]) for r in results], "hours": [(r.curve[1], r.curve[2]) for r in results],
             "evaluations": [tuple(r.evaluations.T) for r in results]}
    whole = {axis: all(len(x) and np.isfinite(x).all() for x, _ in own) for axis, own in lines.items()}
    return {axis: drawn(own, "ci", own) if whole[axis] else None for axis, own in lines.items()}


def seed(r: Result) -> dict[str, Any]:
    """A row of the page's table."""
    return {"seed": r.seed, "scores": r.scores, "commit": short(r.facts), "command": r.facts["command"],
            "hours": r.facts["seconds"] and round(r.facts["seconds"] / 3600, 3)}


if __name__ == "__main__":
    warnings.simplefilter("ignore", RuntimeWarning)
    sys.exit(main())
