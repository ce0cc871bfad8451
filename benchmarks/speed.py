"""Steps per second of whole training beside Stable-Baselines3 or our own a2c, in turn: ours, theirs, ours, theirs, ...

    python benchmarks/speed.py                      # all workloads
    python benchmarks/speed.py --workload=ppo2-pong --workload=ppo2-pong-bfloat16 --rounds=3
    python benchmarks/speed.py --scaling=ppo2-4     # 2 ranks of one thread over 1 rank of one thread; or =all
    python benchmarks/speed.py --footprint          # time to the first update, peak memory

Both sides train with the same hyperparameters on the same machine, with logging and (on MuJoCo) normalisation on; what
comes before `warm` steps, the first update among it, is left out. Every side runs with 1 and with 2 threads, ours also
with what it takes by default; where there are environments to share out, ours also as 2 ranks of 1 thread, which take
the same steps together. The ratio is our best over their best, the second one ours by default over their best; medians
over the rounds are printed. The peer lives in a virtual environment of its own with exact pins.
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
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

from benchmarks.torture import BIN, commit  # noqa: E402  (the path comes first)

PEER_VENV = ROOT / ".venv-sb3"
PINS = ["torch==2.13.0", "stable-baselines3==2.9.2", "sb3-contrib==2.9.2", "gymnasium[mujoco]==1.4.0",
        "mujoco==4.0.0", "numpy==2.4.6", "ale-py==0.12.1", "opencv-python-headless==5.0.0.93"]


@dataclasses.dataclass(frozen=True)
class Workload:
    """A training job of `steps` in all, and the least ratio we want."""

    alg: str
    env: str
    num_env: int
    steps: int
    warm: int  # steps that are not measured
    target: float
    flags: dict[str, Any]  # ours
    peer: str  # a class of Stable-Baselines3 or sb3-contrib, or the name of another of our workloads
    peer_options: dict[str, Any] = dataclasses.field(default_factory=dict)
    peer_steps: int = 0  # the peer is slower: fewer steps measure it as well; 0: a third
    normalize: bool = False
    pixels: bool = False
    log_interval: int = 1  # updates between two rows of the log, on both sides


def ppo(alg: str, env: str, num_env: int, steps: int, nsteps: int, nminibatches: int, noptepochs: int, target: float,
        **more: Any) -> Workload:
    """A PPO workload: the same batches, minibatches and epochs on both sides."""
    batch = num_env * nsteps
    flags = dict(nsteps=nsteps, nminibatches=nminibatches, noptepochs=noptepochs, lr="3e-4")
    options = dict(n_steps=nsteps, batch_size=batch // nminibatches, n_epochs=noptepochs, learning_rate=3e-4)
    return Workload(alg, env, num_env, steps, batch, target, flags | more.pop("flags", {}), "PPO", options, **more)


def a2c(env: str, num_env: int, steps: int, nsteps: int, target: float, **more: Any) -> Workload:
    """An A2C workload."""
    flags = dict(nsteps=nsteps, lr="7e-4") | more.pop("flags", {})
    options = dict(n_steps=nsteps, learning_rate=7e-4)
    return Workload("a2c", env, num_env, steps, steps // 10, target, flags, "A2C", options, **more)


PONG = "PongNoFrameskip-v4"
HALFCHEETAH = dict(env="HalfCheetah-v5", normalize=True)
DEEPQ_PONG = Workload(
    "deepq", PONG, 1, 6_000, 2_000, 2.2,
    dict(network="cnn", hiddens="none", dueling=False, double_q=False, prioritized_replay=False, batch_size=32,
         train_freq=4, nsteps=500, buffer_size=10_000, learning_starts=1000, target_network_update_freq=1000,
         lr="1e-4", exploration_initial_eps=0.05, exploration_final_eps=0.05),
    "DQN", dict(buffer_size=10_000, learning_starts=1000, batch_size=32, train_freq=4, gradient_steps=1,
                exploration_initial_eps=0.05, exploration_final_eps=0.05, target_update_interval=1000,
                learning_rate=1e-4),
    peer_steps=4_000, pixels=True)
WORKLOADS = {
    "ppo2-halfcheetah-1": ppo("ppo2", num_env=1, steps=40_960, nsteps=2048, nminibatches=32, noptepochs=10, target=6.0,
                              **HALFCHEETAH),
    "ppo2-halfcheetah-8": ppo("ppo2", num_env=8, steps=61_440, nsteps=256, nminibatches=32, noptepochs=10, target=6.0,
                              **HALFCHEETAH),
    "ppo2-cartpole-8": ppo("ppo2", "CartPole-v1", 8, 204_800, 128, 4, 4, 5.5),
    "ppo2-cartpole-8-native": ppo("ppo2", "CartPole-v1", 8, 204_800, 128, 4, 4, 5.5, flags=dict(vec="native")),
    "ppo2-pong": ppo("ppo2", PONG, 8, 12_288, 128, 4, 4, 1.8, pixels=True),
    "ppo2-pong-bfloat16": ppo("ppo2", PONG, 8, 12_288, 128, 4, 4, 3.3, pixels=True, flags=dict(dtype="bfloat16")),
    "ppo1-halfcheetah-1": ppo("ppo1", num_env=1, steps=40_960, nsteps=2048, nminibatches=32, noptepochs=10, target=6.0,
                              **HALFCHEETAH),
    "trpo_mpi-halfcheetah-1": Workload(
        "trpo_mpi", num_env=1, steps=61_440, warm=2048, target=4.0,
        flags=dict(nsteps=2048, cg_iters=15, cg_damping=0.1, vf_iters=10, vf_minibatches=16), peer="TRPO",
        peer_options=dict(n_steps=2048, batch_size=128, n_critic_updates=10, cg_max_steps=15, cg_damping=0.1),
        **HALFCHEETAH),
    "a2c-cartpole-8": a2c("CartPole-v1", 8, 200_000, 5, 3.0, log_interval=100),
    "a2c-pong-16": a2c(PONG, 16, 24_000, 5, 2.5, pixels=True, log_interval=10),
    "a2c-pong-16-bfloat16": a2c(PONG, 16, 24_000, 5, 3.0, pixels=True, log_interval=10, flags=dict(dtype="bfloat16")),
    "a2c-pong-32": a2c(PONG, 32, 19_200, 20, 0.0, pixels=True),  # what acktr is compared with
    "a2c-pong-16-20": a2c(PONG, 16, 19_200, 20, 0.0, pixels=True),  # what acer is compared with
    "acktr-pong-32": Workload("acktr", PONG, 32, 64_000, 9_600, 0.8, dict(nsteps=20), "a2c-pong-32", pixels=True),
    "acer-pong-16": Workload("acer", PONG, 16, 12_800, 3_200, 0.25, dict(nsteps=20, buffer_size=2000, replay_start=20),
                             "a2c-pong-16-20", pixels=True),
    "deepq-pong-1": DEEPQ_PONG,
    "deepq-pong-1-bfloat16": dataclasses.replace(DEEPQ_PONG, flags=DEEPQ_PONG.flags | dict(dtype="bfloat16")),
    "ddpg-halfcheetah-1": Workload(
        "ddpg", "HalfCheetah-v5", 1, 12_000, 2_000, 3.3,
        dict(sizes="400,300", activation="relu", batch_size=100, nsteps=100, train_steps=100, learning_starts=1000,
             buffer_size=100_000),
        "DDPG", dict(buffer_size=100_000, learning_starts=1000, batch_size=100, train_freq=100, gradient_steps=100,
                     policy_kwargs=dict(net_arch=[400, 300])), peer_steps=4_000),
}


def command_flags(w: Workload) -> list[str]:
    """Our command-line flags for a workload."""
    own = {"normalize_observations": True, "normalize_rewards": True} if w.normalize else {}
    options = dict(alg=w.alg, env=w.env, num_env=w.num_env) | w.flags | own
    return [f"--{name}={value}" for name, value in options.items()]


def shared_out(w: Workload) -> Workload:
    """What each of 2 ranks does of a workload."""
    return dataclasses.replace(w, num_env=w.num_env // 2, steps=w.steps // 2, warm=w.warm // 2)


def ours(w: Workload, threads: int | None = None, ranks: int = 1) -> dict[str, float]:
    """Steps/s of all ranks, each with a workload, after the warm steps; shares of the time, peak memory of a rank.

    threads: None for as many as a run takes by default.
    """
    with tempfile.TemporaryDirectory() as folder:
        launch = [str(BIN / "mpirun"), "-np", str(ranks)] if ranks > 1 else []
        own = [] if threads is None else [f"--threads={threads}"]
        command = [*launch, sys.executable, str(ROOT / "run.py"), *command_flags(w), *own,
                   f"--num_timesteps={w.steps * ranks}", f"--log_path={folder}", f"--log_interval={w.log_interval}"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)  # for its peak memory
        process.returncode = os.waitstatus_to_exitcode(status)
        if status:
            raise subprocess.CalledProcessError(process.returncode, command)
        with (Path(folder) / "progress.csv").open(newline="") as file:
            rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    rows = [row for row in rows if row["total_timesteps"] >= w.warm * ranks]
    first, last = rows[0], rows[-1]
    seconds = last["time_elapsed"] - first["time_elapsed"]
    shares = {k: statistics.mean(r[k] for r in rows[1:]) for k in first if k.startswith("share_")}
    return {"sps": (last["total_timesteps"] - first["total_timesteps"]) / seconds,
            "peak_gib": usage.ru_maxrss / 2**20, **shares}


def theirs(w: Workload, threads: int) -> dict[str, float]:
    """The peer's steps/s after the warm steps."""
    if w.peer in WORKLOADS:
        return ours(WORKLOADS[w.peer], threads)
    job = json.dumps({**dataclasses.asdict(w), "threads": threads})
    done = subprocess.run([str(PEER_VENV / "bin/python"), str(HERE / "peer_sb3.py"), job], check=True,
                          capture_output=True, text=True, cwd=tempfile.gettempdir())
    return json.loads(done.stdout.splitlines()[-1])


def make_peer() -> None:
    """Creates the peer's virtual environment, once."""
    ready = PEER_VENV / ".ready"
    if not ready.exists() or ready.read_text() != "\n".join(PINS):
        print(f"making {PEER_VENV.name} with {', '.join(PINS)}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(PEER_VENV)], check=True)
        subprocess.run([str(PEER_VENV / "bin/pip"), "install", "--quiet", *PINS], check=True)
        ready.write_text("\n".join(PINS))


def keep(name: str, result: dict[str, Any]) -> None:
    """Writes a result to results/speed.json, under the commit that was measured."""
    path = HERE / "results" / "speed.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    results[name] = result | {"commit": commit()}
    path.write_text(json.dumps(results, indent=1) + "\n")


def compare(name: str, rounds: int) -> dict[str, Any]:
    """Runs a workload on both sides in turn; prints and returns the medians."""
    w = WORKLOADS[name]
    ratios, defaults, mine, peer, every = [], [], [], [], []
    for number in range(rounds):
        default = ours(w)["sps"]
        us = {"1 thread": ours(w, 1), "2 threads": ours(w, 2)}
        if w.num_env % 2 == 0 and w.peer not in WORKLOADS:
            us["2 ranks"] = ours(shared_out(w), 1, ranks=2)
        them = {f"{threads} thread(s)": theirs(w, threads)["sps"] for threads in (1, 2)}
        best = max(us, key=lambda way: us[way]["sps"])
        ratios.append(us[best]["sps"] / max(them.values()))
        defaults.append(default / max(them.values()))
        mine.append({"by": best, **us[best]})
        peer.append(max(them.values()))
        print(f"{name} round {number + 1}, steps/s: ours " + ", ".join(f"{k} {v['sps']:,.0f}" for k, v in us.items())
              + f"; {w.peer} " + ", ".join(f"{k} {v:,.0f}" for k, v in them.items()) + f"; ratio {ratios[-1]:.2f}, "
              f"by default {defaults[-1]:.2f}", flush=True)
        every.append({k: v["sps"] for k, v in us.items()})
    median = statistics.median(ratios)
    shares = {k: statistics.mean(m[k] for m in mine) for k in mine[0] if k.startswith("share_")}
    usual = statistics.median(defaults)
    print(f"{name}: median ratio {median:.2f} (target {w.target:g}), by default {usual:.2f}; "
          + ", ".join(f"{k[6:]} {v:.0%}" for k, v in shares.items())
          + f"; peak memory {max(m['peak_gib'] for m in mine):.2f} GiB", flush=True)
    return {"ratio": median, "target": w.target, "ratios": ratios, "default_ratio": usual, "default_ratios": defaults,
            "ours_sps": [m["sps"] for m in mine], "peer": w.peer, "peer_sps": peer, "by": [m["by"] for m in mine],
            "all_sps": every, "shares": shares, "peak_gib": max(m["peak_gib"] for m in mine)}


EPOCH = {"sync": "epoch"}
SCALING = {
    "ppo2-4": ppo("ppo2", num_env=8, steps=61_440, nsteps=256, nminibatches=4, noptepochs=10, target=0, **HALFCHEETAH),
    "ppo2-32": WORKLOADS["ppo2-halfcheetah-8"],
    "ppo2-32-epoch": dataclasses.replace(WORKLOADS["ppo2-halfcheetah-8"],
                                         flags=WORKLOADS["ppo2-halfcheetah-8"].flags | EPOCH),
    "ppo2-cartpole": ppo("ppo2", "CartPole-v1", 8, 204_800, 32, 4, 10, 0),  # as its preset has it
    "ppo2-cartpole-epoch": ppo("ppo2", "CartPole-v1", 8, 204_800, 32, 4, 10, 0, flags=EPOCH),
    "ppo2-pong": WORKLOADS["ppo2-pong"],
    "ppo2-pong-bfloat16": WORKLOADS["ppo2-pong-bfloat16"],
    "ppo1": WORKLOADS["ppo1-halfcheetah-1"],
    "trpo_mpi": WORKLOADS["trpo_mpi-halfcheetah-1"],
}


def scaling(name: str, rounds: int) -> dict[str, Any]:
    """Weak scaling: steps/s of two ranks of one thread over those of one, each with the workload's environments."""
    w = SCALING[name]
    pairs = [(ours(w, 1)["sps"], ours(w, 1, ranks=2)) for _ in range(rounds)]
    ratio = statistics.median(two["sps"] / one for one, two in pairs)
    comm = statistics.mean(two["share_comm"] for _, two in pairs)
    rates = ", ".join(f"{one:,.0f} -> {two['sps']:,.0f}" for one, two in pairs)
    print(f"scaling {name}: {ratio:.2f} ({rates} steps/s), communication {comm:.0%} of the time", flush=True)
    return {"ratio": ratio, "share_comm": comm, "sps": [[one, two["sps"]] for one, two in pairs]}


def footprint() -> dict[str, Any]:
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
    return {"seconds_to_first_update": seconds, "peak_gib": gigabytes}


def main() -> None:
    """Runs what the flags ask for and writes results/speed.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", choices=WORKLOADS, action="append")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scaling", choices=[*SCALING, "all"], help="measure weak scaling instead")
    parser.add_argument("--footprint", action="store_true", help="measure start-up time and memory instead")
    arguments = parser.parse_args()
    if arguments.scaling:
        for name in SCALING if arguments.scaling == "all" else [arguments.scaling]:
            keep(f"scaling-{name}", scaling(name, arguments.rounds))
    elif arguments.footprint:
        keep("footprint", footprint())
    else:
        make_peer()
        for name in arguments.workload or WORKLOADS:
            keep(name, compare(name, arguments.rounds))


if __name__ == "__main__":
    main()
