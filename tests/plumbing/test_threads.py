"""The threads of NumPy's and SciPy's BLAS: those of the run while it lasts, the caller's again after it."""

import json
import os
import pickle
import subprocess
import sys

import gymnasium as gym
import pytest
import tensorflow as tf

from baselines_lite import ppo2
from baselines_lite.common.policies.actor_critic import ActorCritic
from tests.conftest import ROOT

PROGRAM = """
import json
import os
import sys

import numpy
import gymnasium as gym
import threadpoolctl


def pools():
    return {os.path.basename(pool["filepath"]): pool["num_threads"] for pool in threadpoolctl.threadpool_info()}


class Looks(gym.wrappers.TransformObservation):  # writes down what it sees, in whatever process it lives
    def __init__(self, file, breaks=False):
        super().__init__(gym.make("CartPole-v1"), lambda obs: obs, None)
        self.file, self.breaks, self.count = file, breaks, 0

    def step(self, action):
        self.count += 1
        if self.count == 40:
            import scipy.linalg  # brings a pool of its own, in the middle of a run
            if self.breaks:
                raise ValueError("the pole broke")
        if self.count in (1, 39, 150):
            with open(self.file, "a") as file:
                file.write(json.dumps(pools()) + "\\n")
        return super().step(action)


def main():
    from baselines_lite import a2c, acktr, evaluate, load
    from baselines_lite.common.experiment.config import RunOptions

    seen = {}

    def look(name, act):
        with threadpoolctl.threadpool_limits(3):
            before = pools()
            try:
                act()
            except ValueError:
                name += " that fails"
            after = pools()
        with open(name.split()[0]) as file:
            during = [json.loads(line) for line in file]
        seen[name] = [during, before, after]

    def train(alg, name, breaks=False, **options):
        alg.learn(lambda: Looks(name, breaks), 200, num_env=1, nsteps=50, print_interval=1e9,
                  save_path=f"{name}.model", **options)

    look("run", lambda: train(a2c, "run"))
    look("acktr", lambda: train(acktr, "acktr"))
    look("breaks", lambda: train(a2c, "breaks", breaks=True))
    look("workers", lambda: train(a2c, "workers", vec="async"))
    look("evaluate", lambda: evaluate(load("run.model"), lambda: Looks("evaluate"), episodes=20))
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What a process saw that imported NumPy before anything else, with no limits in its environment."""
    folder = tmp_path_factory.mktemp("threads")
    (folder / "program.py").write_text(PROGRAM)
    env = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "program.py"], cwd=folder, capture_output=True, text=True, timeout=300,
                          env=env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", ["run", "acktr", "breaks that fails", "workers", "evaluate"])
def test_blas_has_the_threads_of_the_run_and_then_the_callers(seen, name):
    during, before, after = seen[name]
    assert during and all(threads == 1 for pools in during for threads in pools.values())
    assert before and all(threads == 3 for threads in before.values())
    assert {pool: after[pool] for pool in before} == before


def test_a_pool_that_is_loaded_during_a_run_is_limited_too(seen):
    during, before, _ = seen["run"]
    assert len(before) < len(during[-1])  # at the latest by the step: TensorFlow brings that of an older SciPy


def test_threads_that_tensorflow_cannot_change_any_more_are_told(tmp_path, capfd):
    tf.constant(0)
    has = tf.config.threading.get_intra_op_parallelism_threads() or len(os.sched_getaffinity(0))
    ppo2.learn("CartPole-v1", 64, num_env=2, nsteps=32, threads=has + 1, log_path=str(tmp_path))
    assert f"already running, with threads={has}: " in capfd.readouterr().out
    assert json.loads((tmp_path / "config.json").read_text())["threads"] == has


def test_an_unpickled_policy_takes_the_threads_of_a_loaded_one(tmp_path):
    """In a process of which it is the first: TensorFlow would take a thread for each core, and a GPU's whole memory."""
    box = gym.spaces.Box(-1, 1, (3,))
    (tmp_path / "policy").write_bytes(pickle.dumps(ActorCritic(box, box, seed=1)))
    program = ("import pickle; policy = pickle.load(open('policy', 'rb')); import tensorflow as tf; "
               "print(tf.config.threading.get_intra_op_parallelism_threads())")
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=300,
                          env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.stdout == "1\n", done.stderr
