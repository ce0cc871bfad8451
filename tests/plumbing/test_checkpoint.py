"""A model file is the whole policy: same actions and scores in a fresh process, also with statistics that matter."""

import json
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest

from baselines_lite import UserError, evaluate, load, ppo2
from baselines_lite.common.checkpoint import space_from_json, space_to_json
from baselines_lite.common.policy import ActorCritic
from tests.conftest import ROOT


class Scaled(gym.ObservationWrapper):
    """CartPole with observations a thousand times as large: hopeless without the right statistics."""

    def __init__(self):
        env = gym.make("CartPole-v1", disable_env_checker=True)
        super().__init__(env)
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (4,), np.float64)

    def observation(self, observation):
        return observation.astype(np.float64) * 1000


FRESH = """
import json, sys
import numpy as np
from baselines_lite import evaluate, load
from tests.plumbing.test_checkpoint import Scaled
policy = load(sys.argv[1])
obs = np.array(json.loads(sys.argv[2]))
print(json.dumps([policy.step(obs, deterministic=True)[0].tolist(), evaluate(policy, Scaled, 5).tolist()]))
"""


def test_a_fresh_process_plays_the_same_with_scaled_observations(tmp_path):
    path = str(tmp_path / "model.safetensors")
    policy = ppo2.learn(Scaled, 20_000, seed=0, num_env=8, nsteps=64, noptepochs=10, lr="linear:1e-3",
                        normalize_observations=True, normalize_rewards=True, save_path=path)
    obs = np.random.default_rng(0).normal(scale=100, size=(50, 4))
    done = subprocess.run([sys.executable, "-c", FRESH, path, json.dumps(obs.tolist())], cwd=ROOT, text=True,
                          capture_output=True)
    assert done.returncode == 0, done.stderr
    actions, scores = json.loads(done.stdout.splitlines()[-1])
    assert actions == policy.step(obs, deterministic=True)[0].tolist() and len(set(actions)) == 2
    assert scores == evaluate(policy, Scaled, 5).tolist()
    assert np.mean(scores) > 100
    assert policy.info["algorithm"] == "ppo2" and load(path).info["config"] == dict(policy.info["config"])


def test_all_weights_and_statistics_come_back(tmp_path):
    policy = ActorCritic(gym.spaces.Box(-1, 1, (3,)), gym.spaces.Box(-np.inf, 2.0, (2,)), normalize_observations=True,
                         normalize_rewards=True, network_options={"num_hidden": 7, "layer_norm": True}, seed=4)
    policy.normalize.obs.mean[:] = [1, 2, 3]
    policy.save(str(tmp_path / "m"))
    loaded = load(str(tmp_path / "m"))
    for a, b in zip(policy.trainable_variables, loaded.trainable_variables):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(loaded.normalize.obs.mean, [1, 2, 3])
    assert loaded.action_space == policy.action_space and loaded.observation_space == policy.observation_space


@pytest.mark.parametrize("space", [
    gym.spaces.Discrete(5, start=-2), gym.spaces.Box(-np.inf, np.inf, (2, 3)), gym.spaces.Box(-1, 1, ()),
    gym.spaces.MultiDiscrete([[3, 2], [4, 2]], start=[[0, 1], [2, -3]]), gym.spaces.MultiBinary([2, 2]),
    gym.spaces.Dict({"b": gym.spaces.Tuple([gym.spaces.MultiBinary(3)]), "a": gym.spaces.Box(0, 255, (9, 9, 3),
                                                                                             np.uint8)}),
    gym.spaces.Box(np.array([0, -3.25]), np.array([1e300, np.inf]), dtype=np.float64)])
def test_spaces_survive_json(space):
    assert space_from_json(json.loads(json.dumps(space_to_json(space), allow_nan=False))) == space


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    policy = ActorCritic(gym.spaces.Box(-1, 1, (3,)), gym.spaces.Discrete(2))
    path = tmp_path / "m.safetensors"
    policy.save(str(path))
    before = path.read_bytes()

    def full_disk(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full_disk)
    with pytest.raises(UserError, match="No space left"):
        policy.save(str(path))
    assert path.read_bytes() == before
