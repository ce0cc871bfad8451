"""Runs learning benchmarks and keeps their results: curves as CSV, a PNG per task, a summary with command and commit.

    python benchmarks/learn.py --alg=ppo2                       # every task of an algorithm
    python benchmarks/learn.py --alg=ppo2 --task=hopper --seeds=0,1,2,3,4 --jobs=2
    python benchmarks/learn.py --alg=ppo2 --task=pong --keep=/tmp/runs     # an hour; logs and models stay in /tmp/runs

Results go to benchmarks/results/ALG/TASK/: seedN.csv (total_timesteps, eprewmean), curve.png, summary.json. The score
of a seed is the mean raw return of the last 100 training episodes; of an identity task, the mean reward per step over
10,000 steps of the saved policy, acting stochastically in a fresh process. A task's commit must be clean to count.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import dataclasses
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from baselines_lite.common.plotting import plot_curves

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent


@dataclasses.dataclass(frozen=True)
class Task:
    """What to train, and the mean over seeds that it must reach."""

    env: str
    steps: float
    target: float
    flags: tuple[str, ...] = ()
    ranks: int = 1
    per_step: bool = False  # score the saved policy per step instead of the training episodes
    seeds: tuple[int, ...] = (0, 1, 2)


TOY = "baselines_lite.toy_envs:"
IDENTITY = ("--gamma=0.9", "--lr=linear:1e-3", "--nsteps=64", "--num_env=1")
TASKS: dict[str, dict[str, Task]] = {
    "ppo2": {
        "identity-discrete": Task(f"{TOY}IdentityDiscrete-v0", 3e4, 0.9, IDENTITY, per_step=True),
        "identity-box": Task(f"{TOY}IdentityBox-v0", 3e4, -0.1, IDENTITY, per_step=True),
        "cartpole": Task("CartPole-v1", 1e5, 475),
        "cartpole-2ranks": Task("CartPole-v1", 1e5, 475, ranks=2),
        "acrobot": Task("Acrobot-v1", 3e5, -90),
        "halfcheetah": Task("HalfCheetah-v5", 1e6, 1669),
        "hopper": Task("Hopper-v5", 1e6, 2316),
        "pong": Task("PongNoFrameskip-v4", 2.5e6, 16, seeds=(0,)),
        "pong-bfloat16": Task("PongNoFrameskip-v4", 2.5e6, 16, ("--dtype=bfloat16",), seeds=(0,)),
        # Published is the first quarter of a run whose rate falls over 10M steps; that schedule was no help (README).
        "breakout": Task("BreakoutNoFrameskip-v4", 2.5e6, 71, seeds=(0,)),
    },
}


def command(alg: str, task: Task, seed: int) -> list[str]:
    """The command line of a run, without its log folder, as a user would type it."""
    launch = ["mpirun", "-np", str(task.ranks)] if task.ranks > 1 else []
    return [*launch, "python", "run.py", f"--alg={alg}", f"--env={task.env}", f"--num_timesteps={task.steps:g}",
            f"--seed={seed}", *task.flags]


def train(alg: str, name: str, seed: int, results: Path, keep_in: str | None) -> float:
    """One run: trains, keeps its curve, returns its score."""
    task = TASKS[alg][name]
    with contextlib.ExitStack() as stack:
        folder = (f"{keep_in}/{alg}-{name}-seed{seed}" if keep_in
                  else stack.enter_context(tempfile.TemporaryDirectory()))
        words = {"mpirun": str(Path(sys.executable).parent / "mpirun"), "python": sys.executable,
                 "run.py": str(ROOT / "run.py")}
        run = [words.get(word, word) for word in command(alg, task, seed)]
        subprocess.run([*run, f"--log_path={folder}", "--save_interval=200"], check=True, stdout=subprocess.DEVNULL)
        with (Path(folder) / "progress.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        if task.per_step:
            code = ("import sys; from baselines_lite import evaluate, load; "
                    "print(evaluate(load(sys.argv[1]), sys.argv[2], 100, deterministic=False).mean() / 100)")
            done = subprocess.run([sys.executable, "-c", code, f"{folder}/model.safetensors", task.env], check=True,
                                  capture_output=True, text=True)
            score = float(done.stdout)
        else:
            score = float(rows[-1]["eprewmean"])
    keep = rows[:: max(1, len(rows) // 200)]
    keep += [rows[-1]] if keep[-1] is not rows[-1] else []
    with (results / f"seed{seed}.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["total_timesteps", "eprewmean"])
        writer.writerows([row["total_timesteps"], row["eprewmean"]] for row in keep)
    print(f"{alg} {name} seed {seed}: {score:.4g}", flush=True)
    return score


def interval(scores: list[float]) -> list[float]:
    """The 95% interval of the mean, by 10,000 bootstrap resamples of the seeds."""
    rng = np.random.default_rng(0)
    means = rng.choice(scores, size=(10_000, len(scores))).mean(axis=1)
    return [float(x) for x in np.percentile(means, [2.5, 97.5])]


def git(*arguments: str) -> str:
    """Git's answer in this repository."""
    return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True).stdout.strip()


def run_task(alg: str, name: str, seeds: Sequence[int], jobs: int, keep_in: str | None) -> None:
    """All seeds of a task; writes its folder anew."""
    task = TASKS[alg][name]
    if git("status", "--porcelain", "--untracked-files=no", "--", "baselines_lite", "run.py"):
        sys.exit("the code has uncommitted changes: results must name a commit")
    commit = git("rev-parse", "HEAD")
    results = HERE / "results" / alg / name
    shutil.rmtree(results, ignore_errors=True)
    results.mkdir(parents=True)
    with ThreadPoolExecutor(jobs) as pool:
        scores = list(pool.map(lambda seed: train(alg, name, seed, results, keep_in), seeds))
    summary = {"command": " ".join(command(alg, task, seeds[0])), "seeds": seeds, "scores": scores,
               "mean": float(np.mean(scores)), "interval95": interval(scores), "target": task.target,
               "metric": "reward per step, saved policy, 10,000 steps" if task.per_step
               else "mean return of the last 100 training episodes", "commit": commit}
    (results / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    curves = []
    for seed in seeds:
        data = np.genfromtxt(results / f"seed{seed}.csv", delimiter=",", names=True)
        data = data[~np.isnan(data["eprewmean"])]
        curves.append((data["total_timesteps"], data["eprewmean"]))
    plot_curves({alg: curves}, results / "curve.png", task.env)
    print(f"{alg} {name}: mean {summary['mean']:.4g}, target {task.target:g}", flush=True)


def main() -> None:
    """Runs what the flags ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--alg", choices=TASKS, required=True)
    parser.add_argument("--task", action="append", help="a task of the algorithm; default: all")
    parser.add_argument("--seeds", help="such as 0,1,2; default: the task's own")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--keep", metavar="FOLDER", help="keep each run's logs and models in a folder below this one")
    arguments = parser.parse_args()
    for name in arguments.task or TASKS[arguments.alg]:
        if name not in TASKS[arguments.alg]:
            parser.error(f"unknown task {name!r}; known: {', '.join(TASKS[arguments.alg])}")
        seeds = [int(s) for s in arguments.seeds.split(",")] if arguments.seeds else TASKS[arguments.alg][name].seeds
        run_task(arguments.alg, name, seeds, arguments.jobs, arguments.keep)


if __name__ == "__main__":
    main()
