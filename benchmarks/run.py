"""Runs what the present code has not made of a suite, and keeps the results.

    python -m benchmarks.run classic --algs=ppo2,a2c --seeds=0-4 --jobs=2
    python -m benchmarks.run mujoco1M --tasks=hopper --plan      # only says what is there, missing, or of older code

The runs' logs are below runs/benchmarks/, or --out; each that has ended leaves a curve and its scores in results/. What
the same code has done is not done again, what was stopped goes on; `python -m benchmarks.report` makes the tables.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from baselines_lite.common.system.errors import UserError, counted
from baselines_lite.common.system.options import to_dict
from baselines_lite.runs.jobs import Job, codes_of
from baselines_lite.runs.logs import read_run
from baselines_lite.runs.runner import Runner, read_json, state_of
from baselines_lite.runs.sweep import seeds_of, shard, split
from benchmarks.results import RESULTS, Result, curve_of, in_a_sentence, scores_of
from benchmarks.suites import SUITES, Task

EVALUATIONS = 20  # in a run

Place = tuple[str, str, str, int]  # suite, task, algorithm, seed


@in_a_sentence
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; the exit status."""
    return run(parsed(arguments))


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("--algs", help="algorithms, such as ppo2,a2c; default: all that a task has")
    parser.add_argument("--tasks", help="tasks of the suite; default: all")
    parser.add_argument("--seeds", default="0-4", help="such as 0-4 or 0,3")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"), help="the folder of the runs' logs")
    parser.add_argument("--shard", default="1/1", help="such as 3/16: the third of sixteen parts")
    parser.add_argument("--plan", action="store_true", help="only say what there is to do")
    return parser.parse_args(arguments)


def run(given: argparse.Namespace) -> int:
    """Does what the flags ask for; the exit status."""
    if given.jobs < 1:
        raise UserError("--jobs must be at least 1")
    wanted = shard(jobs_of(given), given.shard)  # those that are there too: else the parts would change as one goes on
    codes = codes_of([job for job, _ in wanted])
    states = {job.name: state(job, place, codes[job.name]) for job, place in wanted}
    todo = [pair for pair in wanted if states[pair[0].name] != "there"]
    old = [name for name, found in states.items() if found == "old"]
    print(f"{given.suite}: {counted(len(states) - len(todo), 'result')} of {len(states)} there, "
          f"{len(todo)} to do here" + (f"; {len(old)} of older code or another command:" if old else ""))
    for name in old:
        print(f"  {name}")
    if given.plan:
        for name in (name for name, found in states.items() if found == "missing"):
            print(f"missing: {name}")
        return 0
    lacking = 0
    try:
        status = Runner([job for job, _ in todo], given.out, given.jobs).run()
    finally:  # whatever ended: what was stopped keeps the rest for the next time
        for job, place in todo:
            if state_of(job, given.out, codes[job.name]) == "done":
                try:
                    result_of(job, place, given.out).write()
                except UserError as error:
                    lacking += 1
                    print(f"left out: {error}", file=sys.stderr)
    return status or int(lacking > 0)


def jobs_of(given: argparse.Namespace) -> list[tuple[Job, Place]]:
    """The runs of a suite, each with the place of its result. Raises UserError for names that there are not."""
    suite = SUITES[given.suite]
    tasks = split("tasks", given.tasks) if given.tasks else list(suite)
    algorithms = split("algs", given.algs) if given.algs else None
    for name in tasks:
        if name not in suite:
            raise UserError(f"{given.suite} has no task {name!r}; it has {', '.join(suite)}")
    known = {alg for name in tasks for alg in suite[name].algorithms}
    for name in algorithms or ():
        if name not in known:
            raise UserError(f"{name!r} is no algorithm of {given.suite}'s {', '.join(tasks)}: there are "
                            f"{', '.join(sorted(known))}")
    return [(job_of(suite[name], alg, seed), (given.suite, name, alg, seed)) for name in tasks
            for alg in suite[name].algorithms if algorithms is None or alg in algorithms
            for seed in seeds_of(given.seeds)]


def job_of(task: Task, alg: str, seed: int) -> Job:
    """The run of an algorithm in a task: evaluated about twenty times, for the last time at its end."""
    flags = task.flags_of(alg)
    config = Job(alg, task.env, {**flags, "eval_interval": "1"}, task.ranks, seed).resolved().config
    updates = int(float(flags["num_timesteps"])) // (config.num_env * config.nsteps * task.ranks)
    return Job(alg, task.env, {**flags, "eval_interval": str(max(1, updates // EVALUATIONS))}, task.ranks, seed)


def options_of(job: Job) -> dict[str, Any]:
    """All that its training depends on and a preset may change, as JSON has it."""
    found = job.resolved()
    run = {name: value for name, value in to_dict(found.run).items() if name in found.preset}
    return json.loads(json.dumps(to_dict(found.config) | found.network_options | run, default=str))


def state(job: Job, place: Place, code: Mapping[str, Any]) -> str:
    """Whether a result is `there`, `missing`, or `old`: of other code or another command."""
    found = read_json(path_of(place))
    if found is None:
        return "missing"
    return "there" if found.get("command") == job.command and found.get("code") == code["sha256"] else "old"


def path_of(place: Place) -> Path:
    """A result's JSON file."""
    suite, task, alg, seed = place
    return RESULTS / suite / task / alg / f"seed{seed}.json"


def result_of(job: Job, place: Place, out: Path) -> Result:
    """The result of a run that has ended. Raises UserError where it has none."""
    log, told = read_run(out / job.name), read_json(out / job.name / "result.json")
    evaluations = log.evaluations[:, :2]
    facts = {"command": job.command, "code": told["code"]["sha256"], "commit": told["code"]["commit"],
             "dirty": told["code"]["dirty"], "steps": told["steps"], "seconds": round(told["seconds"], 1),
             "versions": told["code"]["versions"], "options": options_of(job)}
    if not len(log.returns):
        raise UserError(f"{job.name}: no episode has finished")
    return Result(*place, facts, scores_of(log.returns, evaluations), curve_of(log.steps, log.hours, log.returns),
                  np.asarray(evaluations))


if __name__ == "__main__":
    sys.exit(main())
