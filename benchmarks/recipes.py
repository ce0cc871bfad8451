"""Keeps what a recipe was chosen by: each sweep is a recipe, of whose runs curves and scores stay.

    baselines-lite sweep --alg=ppo2 --env=Swimmer-v5,Hopper-v5 --seeds=10-14 --out=logs/long --nsteps=2048
    python -m benchmarks.recipes mujoco logs/preset logs/long     # results/experiments/ppo2/mujoco/

A README there has the commands and a row for each recipe; scores are means of the last 100 training episodes. Where all
tasks have a scale (0: random actions, 1: the reference in benchmarks/suites.py), the worst one is named, by which we
choose.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from baselines_lite.common.experiment.plotting import plot_curves
from baselines_lite.common.system.errors import UserError
from baselines_lite.runs.jobs import Job
from baselines_lite.runs.logs import read_run
from baselines_lite.runs.table import markdown
from benchmarks.report import cell
from benchmarks.results import RESULTS, curve_of, in_a_sentence, scores_of, short, table
from benchmarks.suites import SUITES

THIN = 4  # a kept curve has each fourth point, and the last
SCALED = {task.env: task for suite in SUITES.values() for task in suite.values() if task.reference is not None}


@in_a_sentence
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recipes", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="what the recipes are compared for")
    parser.add_argument("folders", type=Path, nargs="+", help="of sweeps of one algorithm, named as their recipes")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where results lie")
    given = parser.parse_args(arguments)
    runs = [(folder.name, run) for folder in given.folders for run in runs_of(folder)]
    algorithm = algorithm_of(runs)
    place = given.results / "experiments" / algorithm / given.name
    place.mkdir(parents=True, exist_ok=True)
    scores: dict[str, dict[str, list[float]]] = {}
    curves: dict[str, dict[str, list[Any]]] = {}
    for recipe, run in runs:
        env, seed = run["job"]["env"], run["job"]["seed"]
        log = read_run(run["folder"])
        curve = curve_of(log.steps, log.hours, log.returns)
        curve = curve[:, [*range(0, curve.shape[1] - 1, THIN), -1]]
        table(place / f"{recipe}-{env}-seed{seed}.csv", ("total_timesteps", "hours", "return"), curve.T)
        score = scores_of(log.returns, np.empty((0, 2)))["last100"]
        scores.setdefault(recipe, {}).setdefault(env, []).append(score)
        curves.setdefault(env, {}).setdefault(recipe, []).append((curve[0], curve[2]))
    plot_curves(curves, place / "curves.png")
    (place / "README.md").write_text(page(given.name, algorithm, runs, scores))
    return 0


def runs_of(folder: Path) -> list[dict[str, Any]]:
    """The runs of a sweep that have ended, by seed: what their result.json says, and their folder.

    Raises UserError where there are none, and where they are of several recipes.
    """
    found = [{**json.loads(path.read_text()), "folder": path.parent} for path in folder.glob("*/seed*/result.json")]
    if not found:
        raise UserError(f"there is no run of a sweep in {str(folder)!r} that has ended")
    for name in sorted({name for run in found for name in run["job"]["flags"]}):
        values = {(run["job"]["env"], run["job"]["flags"].get(name)) for run in found}
        if len(values) > len({env for env, _ in values}):
            raise UserError(f"the runs in {str(folder)!r} differ in --{name}: a recipe has one value in an environment")
    return sorted(found, key=lambda run: run["job"]["seed"])


def algorithm_of(runs: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """The algorithm of all the runs. Raises UserError where they are of several."""
    names = sorted({run["job"]["alg"] for _, run in runs})
    if len(names) > 1:
        raise UserError(f"these are runs of {' and '.join(names)}: recipes of one algorithm are compared")
    return names[0]


def page(name: str, algorithm: str, runs: Sequence[tuple[str, Mapping[str, Any]]],
         scores: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """The README of a comparison; `runs` are recipes' names, each with one of its runs."""
    envs = list(dict.fromkeys(env for by_env in scores.values() for env in by_env))
    scaled = all(env in SCALED for env in envs)
    body = [[recipe, *(cell(np.array(by_env.get(env, ()))) for env in envs), *([worst(by_env)] if scaled else [])]
            for recipe, by_env in scores.items()]
    told = []
    for recipe in dict(runs):
        commands: dict[str, dict[str, dict[str, None]]] = {}  # by command and commit the environments
        for job, code in ((run["job"], run["code"]) for other, run in runs if other == recipe):
            command = Job(algorithm, "ENV", job["flags"], job["ranks"], seed="SEED").command
            commands.setdefault(command, {}).setdefault(short(code), {})[job["env"]] = None
        several = sum(map(len, commands.values())) > 1
        told += [f"- {recipe}: `{command}`, " + ", ".join(
            commit + f" ({', '.join(envs)})" * several for commit, envs in commits.items())
            for command, commits in commands.items()]
    head = ["recipe", *envs, *(["worst, 0 random to 1 reference"] if scaled else [])]
    words = ("Made by `python -m benchmarks.recipes`: means of the last 100 episodes of training; in brackets the "
             "seeds, from five on Student's 95% interval.")
    return "\n\n".join([f"# {name}: recipes of {algorithm}", words, "![Curves](curves.png)",
                        markdown(head, *body).strip(), "\n".join(told)]) + "\n"


def worst(by_env: Mapping[str, Sequence[float]]) -> str:
    """The lowest mean on the scale from random actions to the reference, and where."""
    found = {env: SCALED[env].normalised(np.mean(own)) for env, own in by_env.items()}
    least = min(found, key=found.__getitem__)
    return f"{found[least]:.2f} ({least})"


if __name__ == "__main__":
    sys.exit(main())
