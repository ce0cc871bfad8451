"""Training in a process that has none of the flags with which these tests are compiled: see conftest.py."""

import json
import os
import subprocess
import sys

import pytest

from baselines_lite.registry import ALGORITHMS
from tests import HANG
from tests.conftest import ROOT

PROGRAM = """
import json
import sys
from unittest.mock import patch

import numpy as np
import tensorflow as tf

from baselines_lite import registry
from baselines_lite.common.experiment.experiment import Experiment
from baselines_lite.common.networks.flat import get_flat
from tests.plumbing.test_table import SHORT


def train(name, network):
    "What each of three updates leaves: parameters [3, P] and figures [3, F]."
    parameters, figures, log = [], [], Experiment.log

    def logging(self, rollout, stats, *times):
        log(self, rollout, stats, *times)
        parameters.append(get_flat(self.policy.trainable_variables).copy())
        figures.append([value() if callable(value) else value for value in stats.values()])

    env = f"baselines_lite.common.envs.toy_envs:Identity{'Box' if name == 'ddpg' else 'Discrete'}-v0"
    with patch.object(Experiment, "log", logging):
        registry.find(name).learn(env, 48, seed=3, network=network, print_interval=1e9, **SHORT[name])
    return np.array(parameters), np.array(figures, float)  # None, an empty cell, is NaN


def differences(one, other):
    return int((~np.isclose(one, other, rtol=1e-3, atol=1e-5, equal_nan=True)).sum())


outcomes = {}
for run in sys.argv[1:]:
    tf.config.run_functions_eagerly(False)
    parameters, figures = train(*run.split())
    tf.config.run_functions_eagerly(True)
    uncompiled = train(*run.split())
    outcomes[run] = {"finite": bool(np.isfinite(parameters).all()),
                     "moved": np.abs(np.diff(parameters, axis=0)).max(axis=1).tolist(),
                     "other parameters": differences(parameters, uncompiled[0]),
                     "other figures": differences(figures, uncompiled[1])}
print(json.dumps(outcomes))
"""
RUNS = [*(f"{name} mlp" for name in ALGORITHMS), "ppo2 lstm"]


@pytest.fixture(scope="module")
def outcomes():
    env = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS" and not k.endswith("_NUM_THREADS")}
    done = subprocess.run([sys.executable, "-c", PROGRAM, *RUNS], cwd=ROOT, capture_output=True, text=True, env=env,
                          timeout=HANG)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("run", RUNS)
def test_what_xla_makes_at_its_usual_level_computes_what_the_code_says(outcomes, run):
    """Three updates, compiled and operation by operation: the same parameters and figures, to float32's digits."""
    found = outcomes[run]
    assert found["finite"] and min(found["moved"]) > 1e-5
    assert found["other parameters"] == found["other figures"] == 0, found
