"""Kills runs at random moments, has them go on until they have ended, and compares them with runs left alone.

    python benchmarks/torture.py --kills=200 --jobs=2 --seed=0    # all cases; about an hour
    python benchmarks/torture.py --case=ppo2-2 --kills=5

Each case is one command line with --resume=auto. SIGKILL goes to one rank or to all at a moment that is drawn anew:
while it starts, collects, updates, writes a checkpoint or comes back to one. A run that has ended must have the same
progress.csv and monitor.csv, clocks aside, and the same weights as the one left alone. Results: results/torture.json.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import dataclasses
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

from baselines_lite.common.experiment.logger import provenance  # noqa: E402  (the path comes first)

BIN = Path(sys.executable).parent
CLOCKS = ("sps", "time_", "share_")


@dataclasses.dataclass(frozen=True)
class Case:
    """A command, on so many ranks."""

    flags: tuple[str, ...]
    ranks: int = 1


REPLAY = ("--buffer_size=2000", "--learning_starts=400", "--nsteps=100", "--num_timesteps=8000")
CASES = {
    "ppo2-1": Case(("--alg=ppo2", "--env=CartPole-v1", "--nsteps=64", "--num_timesteps=80000")),
    "ppo2-2": Case(("--alg=ppo2", "--env=CartPole-v1", "--nsteps=64", "--num_timesteps=80000"), 2),
    "trpo_mpi-1": Case(("--alg=trpo_mpi", "--env=HalfCheetah-v5", "--num_env=2", "--nsteps=128",
                        "--num_timesteps=12800")),
    "trpo_mpi-2": Case(("--alg=trpo_mpi", "--env=CartPole-v1", "--num_env=2", "--nsteps=128",
                        "--num_timesteps=25600"), 2),
    "acktr-1": Case(("--alg=acktr", "--env=CartPole-v1", "--num_timesteps=32000", "--asynchronous=true")),
    "acktr-2": Case(("--alg=acktr", "--env=CartPole-v1", "--num_timesteps=32000", "--asynchronous=true"), 2),
    "deepq-1": Case(("--alg=deepq", "--env=CartPole-v1", *REPLAY)),
    "deepq-2": Case(("--alg=deepq", "--env=CartPole-v1", *REPLAY), 2),
    "ddpg-1": Case(("--alg=ddpg", "--env=Pendulum-v1", *REPLAY)),
    "ddpg-2": Case(("--alg=ddpg", "--env=Pendulum-v1", *REPLAY), 2),
}


def command(case: Case, folder: Path) -> list[str]:
    """How a case is started, and started again."""
    launch = [str(BIN / "mpirun"), "-np", str(case.ranks)] if case.ranks > 1 else []
    return [*launch, sys.executable, str(ROOT / "run.py"), *case.flags, f"--log_path={folder}", "--resume=auto",
            "--checkpoint_seconds=0", "--log_interval=1"]


def result(folder: Path) -> dict[str, Any]:
    """What a run left behind, clocks aside."""
    with open(folder / "progress.csv", newline="") as file:
        progress = [{k: v for k, v in row.items() if not k.startswith(CLOCKS)} for row in csv.DictReader(file)]
    episodes = [line.split(",")[:2] for line in (folder / "monitor.csv").read_text().splitlines()[2:]]
    return {"progress": progress, "episodes": episodes, "weights": load_file(folder / "model.safetensors")}


def same(a: dict[str, Any], b: dict[str, Any]) -> str:
    """What of two results differs; nothing if they are the same."""
    wrong = [name for name in ("progress", "episodes") if a[name] != b[name]]
    if a["weights"].keys() != b["weights"].keys() or any(not np.array_equal(a["weights"][k], v)
                                                         for k, v in b["weights"].items()):
        wrong.append("weights")
    return ", ".join(wrong)


def ranks_of(process: subprocess.Popen) -> list[int]:
    """The processes that run run.py: this one, or those that the launcher has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
            group = os.getpgid(int(path.name))
        except (OSError, ValueError):
            continue
        ours = group == process.pid or descends(int(path.name), process.pid)
        if ours and str(ROOT / "run.py").encode() in words and b"mpirun" not in words[0]:
            found.append(int(path.name))
    return found


def descends(pid: int, ancestor: int) -> bool:
    """Whether a process was started by another, or by one that it started."""
    while pid > 1:
        if pid == ancestor:
            return True
        try:
            pid = int(re.search(r"^PPid:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)[1])
        except (OSError, TypeError):
            return False
    return False


def let_run(process: subprocess.Popen, log: Path, rng: random.Random, duration: float, rows: int) -> None:
    """Waits until the moment of a kill, or until the process ends.

    One in four comes while it starts; the others up to a fifth of a second after some new row, of a third of all `rows`
    one that is drawn: so they do not depend on how fast the machine is.
    """
    if rng.random() < 0.25:
        moment = time.monotonic() + rng.uniform(0.5, duration / 2)
        while time.monotonic() < moment and process.poll() is None:
            time.sleep(0.01)
        return
    begin, wanted, extra = rows_of(log), rng.randrange(1, max(2, rows // 3)), rng.uniform(0, 0.2)
    while process.poll() is None:
        now = rows_of(log)
        begin = min(begin, now)  # where it goes on, rows are cut off first
        if now >= begin + wanted:
            time.sleep(extra)
            return
        time.sleep(0.005)


def rows_of(log: Path) -> int:
    """How many rows a run has written to its progress.csv."""
    path = log / "progress.csv"
    return max(0, path.read_bytes().count(b"\n") - 1) if path.exists() else 0


def torture(name: str, kills: int, rng: random.Random) -> dict[str, Any]:
    """Kills a case so many times; what came of it."""
    case, found = CASES[name], {"kills": 0, "ends": 0, "rows_lost": 0, "most_rows_lost": 0, "different": [], "hung": 0,
                                "slowest_end_after_a_kill": 0.0}
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        subprocess.run(command(case, Path(folder, "alone")), check=True, stdout=subprocess.DEVNULL)
        duration = time.monotonic() - start
        alone = result(Path(folder, "alone"))
        while found["kills"] < kills:
            log = Path(folder, "log")
            shutil.rmtree(log, ignore_errors=True)
            ended = False
            while not ended:
                process = subprocess.Popen(command(case, log), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                           text=True, start_new_session=True)
                if found["kills"] < kills:
                    let_run(process, log, rng, duration, len(alone["progress"]))
                    ended = process.poll() is not None
                else:
                    ended = True
                if ended:
                    out, _ = process.communicate()
                    if process.returncode != 0:
                        found["different"].append(f"exit status {process.returncode}: {out[-2000:]}")
                else:
                    ranks = ranks_of(process)
                    for pid in ranks if rng.random() < 0.5 else ranks[-1:]:
                        with contextlib.suppress(ProcessLookupError):  # it has just ended
                            os.kill(pid, signal.SIGKILL)
                    found["kills"] += bool(ranks)
                    killed = time.monotonic()
                    try:
                        out, _ = process.communicate(timeout=120)
                    except subprocess.TimeoutExpired:
                        found["hung"] += 1
                        os.killpg(process.pid, signal.SIGKILL)
                        out, _ = process.communicate()
                    seconds = time.monotonic() - killed
                    found["slowest_end_after_a_kill"] = max(found["slowest_end_after_a_kill"], seconds)
                if went_on := re.search(r"goes on after update .*; (\d+) rows? of", out):
                    found["rows_lost"] += int(went_on[1])
                    found["most_rows_lost"] = max(found["most_rows_lost"], int(went_on[1]))
            found["ends"] += 1
            if wrong := same(alone, result(log)):
                found["different"].append(wrong)
    found["slowest_end_after_a_kill"] = round(found["slowest_end_after_a_kill"], 1)
    return found


def commit() -> str:
    """The commit of the package that is measured, with "+changes" where it has some; results are none."""
    return provenance()["commit"] or ""


def main() -> int:
    """Runs the command line; 1 where a run was not the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", choices=CASES, help="all if none is given")
    parser.add_argument("--kills", type=int, default=200, help="over all cases")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    names = given.case or list(CASES)
    each = -(-given.kills // len(names))

    def run(name: str) -> tuple[str, dict[str, Any]]:
        found = torture(name, each, random.Random(f"{given.seed} {name}"))
        print(name, found, flush=True)
        return name, found

    with ThreadPoolExecutor(given.jobs) as pool:
        results = dict(pool.map(run, names))
    if not given.case:
        text = json.dumps({"command": " ".join(sys.argv), "commit": commit(), "cases": results}, indent=1)
        (HERE / "results/torture.json").write_text(text + "\n")
    return int(any(found["different"] or found["hung"] for found in results.values()))


if __name__ == "__main__":
    sys.exit(main())
