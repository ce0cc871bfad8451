"""The examples do what their first lines say."""

import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest

from baselines_lite import load, ppo2
from examples import corridor, numpy_policy, reinforce
from examples.callback import UntilCertain
from tests.conftest import MPIRUN, ROOT
from tests.plumbing.test_table import SHORT

QUIET = {"print_interval": 1e9}


def test_the_corridor_keeps_the_rules_and_its_state(main):
    done = main("check", "examples.corridor:Corridor-v0", "--steps=200")
    assert done.returncode == 0 and "its state can be kept in checkpoints" in done.stdout
    env = gym.make("Corridor-v0", length=3)
    env.reset(seed=0)
    env.unwrapped.set_state({"position": 2})
    obs, reward, terminated, *_ = env.step(1)
    assert (obs.tolist(), reward, terminated) == ([1.0], 1.0, True)


def test_a_policy_learns_the_corridor():
    """A plain class too, with a network of one's own."""
    callback = UntilCertain(limit=0.3)
    policy = ppo2.learn(corridor.Corridor, 30_000, network="examples.gated:gated", width=16, nsteps=64, num_env=4,
                        lr="3e-3", seed=1, callback=callback, **QUIET)
    assert min(callback.entropies.values()) < 0.3 < max(callback.entropies.values())
    assert [policy.predict(np.array([x / 10], np.float32), deterministic=True)[0] for x in range(10)] == [1] * 10


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_numpy_says_what_the_policy_does(env, tmp_path, uncompiled):
    policy = ppo2.learn(env, 160, **SHORT["ppo2"], **QUIET, normalize_observations=True, num_hidden=8)
    path = str(tmp_path / "m.safetensors")
    policy.save(path)
    act, loaded = numpy_policy.policy_of(path), load(path)
    for obs in np.random.default_rng(0).normal(size=(20, *policy.observation_space.shape)):
        head = loaded.actor()(loaded.features(obs[None]), None).heads[0]
        np.testing.assert_allclose(act(obs), head[: len(act(obs))], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("network", ["mlp", "lstm"])
def test_an_algorithm_of_ones_own_goes_on_to_the_bit(network, main, tmp_path, uncompiled):
    flags = ["--alg=examples.reinforce", "--env=CartPole-v1", f"--network={network}", "--num_env=2", "--nsteps=8",
             "--checkpoint_seconds=0", "--print_interval=1e9"]
    assert main(*flags, "--num_timesteps=96", "--log_path=whole").returncode == 0
    assert main(*flags, "--num_timesteps=48", "--log_path=part").returncode == 0
    assert main(*flags, "--num_timesteps=96", "--log_path=part", "--resume=auto").returncode == 0
    whole, part = (load(str(tmp_path / name / "model.safetensors")).contents() for name in ("whole", "part"))
    assert all(np.array_equal(np.array(a), np.array(part[name])) for name, a in whole.items())


@pytest.mark.slow
def test_reinforce_learns():
    found = []
    reinforce.learn("CartPole-v1", 200_000, seed=0, callback=lambda after: found.append(after.figures["eprewmean"]))
    assert found[-1] > 150


def test_a_script_of_ones_own_under_mpirun(tmp_path, uncompiled):
    policy = ppo2.learn("CartPole-v1", 32, **SHORT["ppo2"], **QUIET)
    policy.save(str(tmp_path / "m"))
    done = subprocess.run([str(MPIRUN), "-np", "2", sys.executable, "examples/mpi_script.py", str(tmp_path / "m")],
                          cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "over 10 episodes of 2 ranks" in done.stdout, done.stderr
