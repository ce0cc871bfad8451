"""Steps per second of whole training beside Stable-Baselines3, in turn: ours, theirs, ours, theirs, ...

    python benchmarks/speed.py                      # all workloads of ppo2
    python benchmarks/speed.py --workload=pong --workload=pong-bfloat16 --rounds=3
    python benchmarks/speed.py --scaling=scaling-4  # 2 ranks of one thread over 1 rank of one thread; or =all
    python benchmarks/speed.py --footprint          # time to the first update, peak memory

Both sides train with the same hyperparameters on the same machine, with logging and (on MuJoCo) normalisation on; each
side's first update is left out. Every side runs with 1 and with 2 threads; the ratio is ours over the better of
theirs, its median over the rounds is printed. The peer lives in a virtual environment of its own with exact pins.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BIN = Path(sys.executable).parent
PEER_VENV = ROOT / ".venv-sb3"
PINS = ["torch==2.13.0", "stable-baselines3==2.9.2", "gymnasium[mujoco]==1.4.0", "mujoco==4.0.0",
        "numpy==2.4.6", "ale-py==0.12.1", "opencv-python-headless==5.0.0.93"]


@dataclasses.dataclass(frozen=True)
class Workload:
    """A training job: `steps` in all, hyperparameters by our names, and the least ratio we want."""

    env: str
    steps: int
    num_env: int
    nsteps: int
    nminibatches: int
    noptepochs: int
    target: float
    normalize: bool = False
    pixels: bool = False
    dtype: str = "float32"  # ours; the peer has float32 only


WORKLOADS = {
    "halfcheetah-1": Workload("HalfCheetah-v5", 40_960, 1, 2048, 32, 10, 6.0, normalize=True),
    "halfcheetah-8": Workload("HalfCheetah-v5", 61_440, 8, 256, 32, 10, 5.0, normalize=True),
    "cartpole-8": Workload("CartPole-v1", 204_800, 8, 128, 4, 4, 4.0),
    "pong": Workload("PongNoFrameskip-v4", 12_288, 8, 128, 4, 4, 1.8, pixels=True),
    "pong-bfloat16": Workload("PongNoFrameskip-v4", 12_288, 8, 128, 4, 4, 2.8, pixels=True, dtype="bfloat16"),
}


def flags(w: Workload) -> list[str]:
    """Our command-line flags for a workload."""
    return [f"--env={w.env}", f"--num_env={w.num_env}", f"--nsteps={w.nsteps}", f"--nminibatches={w.nminibatches}",
            f"--noptepochs={w.noptepochs}", "--lr=3e-4", f"--normalize_observations={w.normalize}",
            f"--normalize_rewards={w.normalize}", f"--dtype={w.dtype}"]


def ours(w: Workload, threads: int, ranks: int = 1) -> dict[str, float]:
    """Steps/s without the first update, the shares of the time, peak memory of a rank, seconds to the first update."""
    with tempfile.TemporaryDirectory() as folder:
        launch = [str(BIN / "mpirun"), "-np", str(ranks)] if ranks > 1 else []
        command = [*launch, sys.executable, str(ROOT / "run.py"), "--alg=ppo2", *flags(w), f"--threads={threads}",
                   f"--num_timesteps={w.steps * ranks}", f"--log_path={folder}", "--log_interval=1"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)  # for its peak memory
        process.returncode = os.waitstatus_to_exitcode(status)
        if status:
            raise subprocess.CalledProcessError(process.returncode, command)
        with (Path(folder) / "progress.csv").open(newline="") as file:
            rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    first, last = rows[0], rows[-1]
    seconds = last["time_elapsed"] - first["time_elapsed"]
    shares = {k: statistics.mean(r[k] for r in rows[1:]) for k in first if k.startswith("share_")}
    return {"sps": (last["total_timesteps"] - first["total_timesteps"]) / seconds,
            "peak_gib": usage.ru_maxrss / 2**20, **shares}


def theirs(w: Workload, threads: int) -> dict[str, float]:
    """Stable-Baselines3's steps/s without the first update."""
    job = json.dumps({**dataclasses.asdict(w), "threads": threads})
    done = subprocess.run([str(PEER_VENV / "bin/python"), str(HERE / "peer_sb3.py"), job], check=True,
                          capture_output=True, text=True, cwd=tempfile.gettempdir())
    return json.loads(done.stdout.splitlines()[-1])


def commit() -> str:
    """The commit that is measured: each result keeps its own."""
    return subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()


def make_peer() -> None:
    """Creates the peer's virtual environment, once."""
    ready = PEER_VENV / ".ready"
    if not ready.exists() or ready.read_text() != "\n".join(PINS):
        print(f"making {PEER_VENV.name} with {', '.join(PINS)}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(PEER_VENV)], check=True)
        subprocess.run([str(PEER_VENV / "bin/pip"), "install", "--quiet", *PINS], check=True)
        ready.write_text("\n".join(PINS))


def compare(name: str, rounds: int, results: dict) -> None:
    """Runs a workload on both sides in turn and prints the medians."""
    w = WORKLOADS[name]
    ratios, mine, peer = [], [], []
    for number in range(rounds):
        us = {threads: ours(w, threads) for threads in (1, 2)}
        them = {threads: theirs(w, threads)["sps"] for threads in (1, 2)}
        best = max(us, key=lambda t: us[t]["sps"])
        ratios.append(us[best]["sps"] / max(them.values()))
        mine.append({"threads": best, **us[best]})
        peer.append(max(them.values()))
        print(f"{name} round {number + 1}, steps/s with 1 and 2 threads: ours {us[1]['sps']:,.0f} {us[2]['sps']:,.0f}; "
              f"SB3 {them[1]:,.0f} {them[2]:,.0f}; ratio {ratios[-1]:.2f}", flush=True)
    median = statistics.median(ratios)
    shares = {k: statistics.mean(m[k] for m in mine) for k in mine[0] if k.startswith("share_")}
    print(f"{name}: median ratio {median:.2f} (target {w.target:g}); "
          + ", ".join(f"{k[6:]} {v:.0%}" for k, v in shares.items())
          + f"; peak memory {max(m['peak_gib'] for m in mine):.2f} GiB", flush=True)
    results[name] = {"ratio": median, "target": w.target, "ratios": ratios, "ours_sps": [m["sps"] for m in mine],
                     "sb3_sps": peer, "threads": [m["threads"] for m in mine], "shares": shares,
                     "peak_gib": max(m["peak_gib"] for m in mine), "commit": commit()}


SCALING = {
    "scaling-4": dataclasses.replace(WORKLOADS["halfcheetah-8"], nminibatches=4),
    "scaling-32": WORKLOADS["halfcheetah-8"],
    "scaling-pong": WORKLOADS["pong"],
    "scaling-pong-bfloat16": WORKLOADS["pong-bfloat16"],
}


def scaling(name: str, rounds: int, results: dict) -> None:
    """Weak scaling: steps/s of two ranks of one thread over those of one, each with the workload's environments."""
    w = SCALING[name]
    pairs = [(ours(w, 1)["sps"], ours(w, 1, ranks=2)) for _ in range(rounds)]
    ratio = statistics.median(two["sps"] / one for one, two in pairs)
    comm = statistics.mean(two["share_comm"] for _, two in pairs)
    rates = ", ".join(f"{one:,.0f} -> {two['sps']:,.0f}" for one, two in pairs)
    print(f"{name}: {ratio:.2f} ({rates} steps/s), communication {comm:.0%} of the time", flush=True)
    results[name] = {"ratio": ratio, "share_comm": comm, "sps": [[one, two["sps"]] for one, two in pairs],
                     "commit": commit()}


def footprint(results: dict) -> None:
    """Seconds from the start of the process to the end of the first update, and peak memory, on CartPole-v1."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        process = subprocess.Popen([sys.executable, str(ROOT / "run.py"), "--env=CartPole-v1", "--num_timesteps=5e4",
                                    f"--log_path={folder}"], stdout=subprocess.DEVNULL)
        log = Path(folder) / "progress.csv"
        while not (log.exists() and log.read_text().count("\n") > 1):
            time.sleep(0.05)
        seconds = time.monotonic() - start
        process.wait()
    gigabytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f"first update after {seconds:.1f} s (target 10); peak memory {gigabytes:.2f} GiB (target 1)", flush=True)
    results["footprint"] = {"seconds_to_first_update": seconds, "peak_gib": gigabytes, "commit": commit()}


def main() -> None:
    """Runs what the flags ask for and writes results/speed.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", choices=WORKLOADS, action="append")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scaling", choices=[*SCALING, "all"], help="measure weak scaling instead")
    parser.add_argument("--footprint", action="store_true", help="measure start-up time and memory instead")
    arguments = parser.parse_args()
    path = HERE / "results" / "speed.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    if arguments.scaling:
        for name in SCALING if arguments.scaling == "all" else [arguments.scaling]:
            scaling(name, arguments.rounds, results)
    elif arguments.footprint:
        footprint(results)
    else:
        make_peer()
        for name in arguments.workload or WORKLOADS:
            compare(name, arguments.rounds, results)
    path.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
