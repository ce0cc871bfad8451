"""Runs jobs in processes of their own, some at a time, each in a folder below one for all of them.

`job.json` is written before a run begins, `result.json` when it has ended well. Both name the job and its code: what is
done is not done again, what was stopped goes on, and what another job or other code has left is moved to `old/`.
"""

from __future__ import annotations

import collections
import contextlib
import csv
import dataclasses
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from baselines_lite.common.system.errors import UserError, counted
from baselines_lite.common.system.folders import held, now, own_folder
from baselines_lite.common.system.stop_signals import STOP
from baselines_lite.runs.jobs import Job, code_of, codes_of, environment, mpirun

LAST = 100  # training episodes whose mean return is a run's score
# Executes a command that ends when the process that started it does, however that ends: PR_SET_PDEATHSIG of Linux.
# Of mpirun too, with which its ranks end. Not by Popen's preexec_fn, which is not safe beside the threads of libraries.
TIED = ("import ctypes, os, sys; _, parent, *command = sys.argv; ctypes.CDLL(None).prctl(1, 9); "
        "os.getppid() == int(parent) and os.execvp(command[0], command)")


def state_of(job: Job, out: Path, code: Mapping[str, Any]) -> str:
    """What is to be done about a job: nothing where it is `done`, else to begin it: `new`; to go on: `begun`;
    to move away what another job or other code has left in its folder, and to begin: `old`.
    """
    folder = out / job.name
    for name, state in (("result.json", "done"), ("job.json", "begun")):
        found = read_json(folder / name)
        if found is not None:
            by = found.get("code")
            same = found.get("job") == job.key and isinstance(by, dict) and by.get("sha256") == code["sha256"]
            return state if same else "old"
    return "old" if folder.is_dir() and any(folder.iterdir()) else "new"


def results(jobs: Sequence[Job], out: Path) -> list[dict[str, Any]]:
    """The results of those of the jobs that have one, by whichever code."""
    found = (read_json(out / job.name / "result.json") for job in jobs)
    return [result for job, result in zip(jobs, found) if result is not None and result.get("job") == job.key]


@dataclasses.dataclass
class Running:
    """A run that has been started."""

    job: Job
    code: dict[str, Any]
    folder: Path
    process: subprocess.Popen
    hold: contextlib.ExitStack  # of its folder, and of the file of its output
    told: int = 0  # how many signals have been passed on to it


class Runner:
    """Runs jobs, `at_once` at a time, each with its share of the cores.

    Raises UserError, before any has begun, for a job that no run would accept and for a folder that cannot be written.
    """

    def __init__(self, jobs: Sequence[Job], out: Path, at_once: int = 1) -> None:
        self.jobs, self.out, self.at_once = jobs, out, at_once
        self.steps = {job.name: job.resolved().run.num_timesteps for job in jobs}
        if any(job.ranks > 1 for job in jobs):
            mpirun()
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write the folder {str(out)!r}: {error.strerror}") from None
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.cores = max(1, cores // at_once)
        self.running: list[Running] = []
        self.done: set[str] = set()
        self.failed: set[str] = set()
        self.taken: dict[str, str] = {}  # what somebody else works on, and what the lock says of that
        self.came: list[int] = []  # signals
        self._aside: Path | None = None

    def run(self) -> int:
        """Does what is to be done; the exit status: 0 where each job has its result, 1 where one has none, 128 + signal
        where SIGINT, SIGTERM or SIGUSR1 came.

        The first signal is passed on to the runs, which write a checkpoint and end; the second one kills them.
        """
        with self._signals():
            codes = codes_of(self.jobs)
            states = {job.name: state_of(job, self.out, codes[job.name]) for job in self.jobs}
            todo = [job for job in self.jobs if states[job.name] != "done"]
            self.done = {job.name for job in self.jobs} - {job.name for job in todo}
            self._before = {job.name: steps_done(self.out / job.name) if states[job.name] == "begun" else 0
                            for job in todo}
            self._total = sum(self.steps[job.name] - self._before[job.name] for job in todo)
            self._began = time.monotonic()
            self._bar = tqdm(total=self._total, unit="step", unit_scale=True, smoothing=0, file=sys.stdout,
                             disable=not sys.stdout.isatty(), dynamic_ncols=True, leave=False)
            try:
                self._work(todo)
                others, self.taken = self.taken, {}
                self._work([job for job in todo if job.name in others])  # are they done, or nobody's any more?
            except OSError as error:
                raise UserError(f"cannot write {error.filename!r}: {error.strerror}") from None
            finally:
                for each in self.running:  # after an exception
                    each.process.terminate()
                for each in self.running:
                    each.process.wait()
                    each.hold.close()
                self._bar.close()
        return self._end()

    def _work(self, jobs: Sequence[Job]) -> None:
        """Starts these jobs as there is room, until all have ended or a signal has ended those that run."""
        todo = collections.deque(jobs)
        while self.running or (todo and not self.came):
            while todo and len(self.running) < self.at_once and not self.came:
                self._start(todo.popleft())
            untold = [each for each in self.running if each.told < len(self.came)]
            if untold and len(self.came) == 1:
                say(f"{signal.Signals(self.came[0]).name}: {counted(len(untold), 'run')} will end after the present "
                    "update; a second signal kills what runs")
            for each in untold:
                # SIGTERM, whatever came: a shell has SIGINT ignored by what it starts in the background.
                each.process.send_signal(signal.SIGTERM if len(self.came) == 1 else signal.SIGKILL)
                each.told = len(self.came)
            for each in [each for each in self.running if each.process.poll() is not None]:
                self._finish(each)
            if not self._bar.disable:
                self._bar.set_postfix_str(f"{self._counts()}, {len(self.running)} running", refresh=False)
                self._bar.update(self._steps() - self._bar.n)
            time.sleep(0.1)

    def _start(self, job: Job) -> None:
        """Starts a job's run, unless it is done meanwhile or somebody else does it."""
        folder = self.out / job.name
        folder.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as hold:
            try:
                hold.enter_context(held(folder.with_name(f".{folder.name}.lock"), job.name))
            except UserError as error:
                self.taken[job.name] = str(error)
                return
            code = code_of(job.alg, job.modules)  # as it is now
            state = state_of(job, self.out, code)
            if state == "done":
                self.done.add(job.name)
                return
            if state == "old":
                self._move_aside(job)
            folder.mkdir(exist_ok=True)
            write_json(folder / "job.json", {"job": job.key, "command": job.command, "code": code})
            output = hold.enter_context((folder / "output.txt").open("a"))
            tied = [sys.executable, "-c", TIED, str(os.getpid())] if sys.platform == "linux" else []
            process = subprocess.Popen([*tied, *job.launched(folder, self.cores)], stdin=subprocess.DEVNULL,
                                       stdout=output, stderr=output, env=environment(),
                                       start_new_session=True)  # else a terminal would send it Ctrl-C too
            self.running.append(Running(job, code, folder, process, hold.pop_all()))

    def _move_aside(self, job: Job) -> None:
        """Moves what is in a job's folder, and is not the job's, below old/."""
        if self._aside is None:
            self._aside = Path(own_folder(str(self.out / "old" / now())))
        place = self._aside / job.name
        place.parent.mkdir(parents=True, exist_ok=True)
        (self.out / job.name).rename(place)
        say(f"{job.name}: what other code or another configuration left there is now in {str(place)!r}")

    def _finish(self, each: Running) -> None:
        """Takes note of how a run has ended."""
        status, name, output = each.process.returncode, each.job.name, each.folder / "output.txt"
        if status == 0:
            write_json(each.folder / "result.json", {"job": each.job.key, "command": each.job.command,
                                                     "code": each.code, "status": status, **outcome(each.folder)})
            self.done.add(name)
        elif not self.came:
            self.failed.add(name)
            how = f"exit status {status}" if status > 0 else signal.Signals(-status).name
            lines = "\n".join(f"    {line}" for line in tail(output).splitlines()[-5:])
            say(f"{name} failed ({how}); {str(output)!r} ends with\n{lines}")
        self.running.remove(each)
        each.hold.close()
        if self._bar.disable and not self.came:
            steps, seconds = self._steps(), time.monotonic() - self._began
            known = steps > 0.05 * self._total  # before that it is the time that starting takes
            left = f", {tqdm.format_interval((self._total - steps) * seconds / steps)} left" if known else ""
            say(f"{name} {'is done' if status == 0 else 'failed'}: {self._counts()}{left}")

    def _steps(self) -> int:
        """The environment steps that all runs have made since this began; those of a run that has ended as planned."""
        ended = (self.done | self.failed) & self._before.keys()
        made = {name: self.steps[name] for name in ended} | {
            each.job.name: steps_done(each.folder) for each in self.running}
        return sum(max(0, steps - self._before[name]) for name, steps in made.items())

    def _counts(self) -> str:
        return f"{len(self.done)} of {len(self.jobs)} done" + (f", {len(self.failed)} failed" if self.failed else "")

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Within the block, the signals STOP are noted in `came`."""
        def note(number: int, frame: object) -> None:
            self.came.append(number)

        before = {number: signal.signal(number, note) for number in STOP if signal.getsignal(number) != signal.SIG_IGN}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _end(self) -> int:
        """Says what is left to do; the exit status."""
        if self.came:
            say(f"stopped by {signal.Signals(self.came[0]).name}: {self._counts()}; the same command goes on")
            return 128 + self.came[0]
        for sentence in self.taken.values():
            say(f"left out: {sentence}")
        if self.failed:
            say(f"{counted(len(self.failed), 'run')} of {len(self.jobs)} failed; the same command tries "
                f"{'it' if len(self.failed) == 1 else 'them'} again")
        codes = codes_of(self.jobs)
        old = [job for job in self.jobs if job.name in self.done
               and state_of(job, self.out, codes[job.name]) != "done"]
        if old:
            say(f"the code was changed meanwhile: {counted(len(old), 'result')} of {len(self.jobs)} "
                f"{'is' if len(old) == 1 else 'are'} of what it was before; the same command makes them anew")
        return 1 if self.failed or self.taken else 0


def say(line: str) -> None:
    """Prints a line above the one of the progress."""
    tqdm.write(line, file=sys.stdout)
    sys.stdout.flush()


def outcome(folder: Path) -> dict[str, Any]:
    """What a run's log says of it as a whole; None for what it does not say.

    `score` is the mean raw return of the last 100 training episodes, `evaluation` the last row of evaluations.csv.
    """
    last, evaluation = last_row(folder / "progress.csv"), last_row(folder / "evaluations.csv")
    steps, seconds = (float(last.get(name) or 0) for name in ("total_timesteps", "time_elapsed"))
    returns: list[float] = []
    with contextlib.suppress(FileNotFoundError), (folder / "monitor.csv").open(newline="") as file:
        file.readline()  # a comment
        returns.extend(float(row["r"]) for row in csv.DictReader(file))
    return {"steps": int(steps), "seconds": seconds, "steps_per_second": steps / seconds if seconds else None,
            "score": statistics.fmean(returns[-LAST:]) if returns else None, "episodes": len(returns),
            "evaluation": {name: float(text) for name, text in evaluation.items() if text} or None}


def steps_done(folder: Path) -> int:
    """The environment steps that the run in a folder has logged."""
    return int(last_row(folder / "progress.csv").get("total_timesteps", 0))


def last_row(path: Path) -> dict[str, str]:
    """The last whole row of a CSV file by its columns; nothing where there is none."""
    try:
        with path.open(encoding="utf-8") as file:
            columns = file.readline().strip().split(",")
    except FileNotFoundError:
        return {}
    cells = tail(path).rpartition("\n")[0].rpartition("\n")[2].split(",")
    return dict(zip(columns, cells)) if len(cells) == len(columns) and cells != columns else {}


def tail(path: Path, size: int = 10_000) -> str:
    """The end of a text file."""
    with path.open("rb") as file:
        file.seek(-min(size, file.seek(0, os.SEEK_END)), os.SEEK_END)
        return file.read().decode("utf-8", "replace")


def read_json(path: Path) -> dict[str, Any] | None:
    """What a JSON file holds; None where there is none, {} where it is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes a JSON file as a whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    os.replace(part, path)
