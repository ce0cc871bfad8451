"""Runs that stop and go on beside runs that do not: the same to the bit?

    python benchmarks/resume.py --jobs=2                 # the whole matrix, about an hour
    python benchmarks/resume.py --cell=ppo2-pong-1       # one cell, or several

A cell trains for some updates, again for a part of them, and goes on with that in another process. progress.csv and
monitor.csv must be the same, clocks aside, and all weights. Results: results/resume.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BIN = Path(sys.executable).parent
sys.path.insert(0, str(ROOT))

from benchmarks.torture import commit, result, same  # noqa: E402  (the path comes first)


@dataclasses.dataclass(frozen=True)
class Cell:
    """`updates` of an algorithm, with a stop after `stop` of them."""

    alg: str
    env: str
    options: dict[str, Any]
    ranks: int = 1
    updates: int = 10
    stop: int = 6


FIT = dict(num_env=2, nsteps=64)
EPOCHS = dict(num_env=2, nsteps=64, noptepochs=2)
SEGMENTS = dict(num_env=4, nsteps=20, buffer_size=200, replay_start=40)
SHORT = dict(vpg=FIT, npg=FIT, trpo_mpi=FIT, ppo1=EPOCHS, ppo2=EPOCHS, a2c=dict(num_env=4, nsteps=8),
             acktr=dict(num_env=4, nsteps=16, asynchronous=True, inverse_every=4, cold_iter=2), acer=SEGMENTS,
             deepq=dict(nsteps=100, buffer_size=400, learning_starts=200),
             ddpg=dict(nsteps=100, buffer_size=400, learning_starts=200))
ENVS = dict(cartpole="CartPole-v1", pendulum="Pendulum-v1", halfcheetah="HalfCheetah-v5", ant="Ant-v5",
            humanoid="Humanoid-v5", pong="PongNoFrameskip-v4")
DISCRETE, CONTINUOUS = ("cartpole", "pong"), ("pendulum", "halfcheetah", "ant", "humanoid")
TASKS = {name: (*DISCRETE, *CONTINUOUS) for name in SHORT}
TASKS |= dict(acer=DISCRETE, deepq=DISCRETE, ddpg=CONTINUOUS)


def cells() -> dict[str, Cell]:
    """The matrix, by name."""
    found = {}
    for alg, tasks in TASKS.items():
        for task in tasks:
            options = dict(SHORT[alg])
            if task == "pong":
                options |= dict(network="cnn_small", nsteps=16 if alg in ("deepq", "acer") else 8)
                if alg == "deepq":
                    options |= dict(learning_starts=50, hiddens="none")
            for ranks in (1, 2):
                found[f"{alg}-{task}-{ranks}"] = Cell(alg, ENVS[task], options, ranks)
    toy = "baselines_lite.common.envs.toy_envs:"
    found["ppo2-lstm"] = Cell("ppo2", ENVS["cartpole"], EPOCHS | dict(network="lstm"))
    found["acer-lstm"] = Cell("acer", ENVS["cartpole"], SEGMENTS | dict(network="lstm"))
    found["ppo2-dict"] = Cell("ppo2", f"{toy}IdentityDict-v0", EPOCHS)
    for alg in ("ppo2", "deepq"):
        found[f"{alg}-next-step"] = Cell(alg, "benchmarks.resume:next_step", SHORT[alg])
        found[f"{alg}-counting"] = Cell(alg, "benchmarks.resume:counting", SHORT[alg] | dict(renew_after=3))
    found["ppo2-async"] = Cell("ppo2", ENVS["halfcheetah"], EPOCHS | dict(vec="async"))
    found["ppo2-native"] = Cell("ppo2", ENVS["cartpole"], EPOCHS | dict(vec="native"))
    found["ppo2-tensorboard"] = Cell("ppo2", ENVS["cartpole"], EPOCHS | dict(tensorboard=True))
    return found


def next_step() -> Any:
    """CartPole in a vector environment of the caller's, in NEXT_STEP mode."""
    import gymnasium as gym

    return gym.vector.SyncVectorEnv([lambda: gym.make("CartPole-v1")] * 2,
                                    autoreset_mode=gym.vector.AutoresetMode.NEXT_STEP)


def counting() -> Any:
    """What makes CartPole in a wrapper that counts in silence, over resets too."""
    import gymnasium as gym

    class Counting(gym.Wrapper):
        count = 0

        def step(self, action: Any) -> Any:
            obs, reward, *rest = super().step(action)
            self.count += 1
            return obs, reward + self.count % 7, *rest

    return lambda: Counting(gym.make("CartPole-v1"))


def train(alg: str, env: Any, options: dict[str, Any], stop: int) -> None:
    """One part of a cell, in this process: ends after `stop` updates, if that is not 0."""
    import importlib

    from baselines_lite.common.experiment import experiment

    why, renew_after = experiment.Experiment.why_stop, options.pop("renew_after", None)
    experiment.Experiment.why_stop = lambda self, *given: ("stopped here" if stop and self.nupdates == stop
                                                            else why(self, *given))
    if renew_after:  # updates, so that few suffice
        experiment.Experiment.renew_every = property(lambda self: renew_after, lambda self, value: None)
    if env.startswith("benchmarks.resume:"):
        env = globals()[env.partition(":")[2]]()
        if not callable(env):
            options.pop("num_env", None)
    importlib.import_module(f"baselines_lite.{alg}").learn(env, **options)


def compare(name: str) -> str:
    """What differs in a cell; nothing if it holds."""
    cell = cells()[name]
    launch = [str(BIN / "mpirun"), "-np", str(cell.ranks)] if cell.ranks > 1 else []
    samples = cell.options["nsteps"] * cell.options.get("num_env", 1) * cell.ranks
    with tempfile.TemporaryDirectory() as folder:
        base = {**cell.options, "num_timesteps": cell.updates * samples, "log_interval": 1, "print_interval": 1e9}
        whole, parts = Path(folder, "whole"), Path(folder, "parts")
        again = {k: v for k, v in cell.options.items() if k in ("renew_after", "vec", "tensorboard")}
        for options, stop in (({**base, "log_path": str(whole)}, 0), ({**base, "log_path": str(parts)}, cell.stop),
                              ({**again, "resume": str(parts)}, 0)):
            part = json.dumps([cell.alg, cell.env, options, stop])
            done = subprocess.run([*launch, sys.executable, __file__, "--train", part], capture_output=True, text=True,
                                  env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=folder)
            if done.returncode:
                return f"exit status {done.returncode}: {done.stderr[-1500:]}"
        return same(result(whole), result(parts))


def main() -> int:
    """Runs the command line; 1 where a cell does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cell", action="append", choices=cells(), metavar="NAME", help="all if none is given")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--train", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.train:
        train(*json.loads(given.train))
        return 0

    def run(name: str) -> tuple[str, str]:
        wrong = compare(name)
        print(f"{name}: {wrong or 'the same'}", flush=True)
        return name, wrong

    with ThreadPoolExecutor(given.jobs) as pool:
        found = dict(pool.map(run, given.cell or cells()))
    wrong = {name: text for name, text in found.items() if text}
    print(f"{len(found) - len(wrong)} of {len(found)} cells hold")
    if not given.cell:
        facts = {"command": " ".join(sys.argv), "commit": commit(), "cells": len(found), "wrong": wrong}
        (HERE / "results/resume.json").write_text(json.dumps(facts, indent=1) + "\n")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
