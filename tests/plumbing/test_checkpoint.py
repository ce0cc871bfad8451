"""A model file is the whole policy: same actions and scores in a fresh process, also with statistics that matter."""

import json
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf

from baselines_lite import UserError, evaluate, load, ppo2, registry
from baselines_lite.common.networks.builders import NETWORKS
from baselines_lite.common.networks.layers import Dense, LayerNorm
from baselines_lite.common.networks.parameters import weights
from baselines_lite.common.policies.actor_critic import ActorCritic
from baselines_lite.common.policies.file_format import ModelFile, space_from_json, space_to_json
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


class Shown(gym.Env):
    """Notes the actions that it is given, from 0 to 100. Episodes of three steps."""

    observation_space, action_space, seen = gym.spaces.Box(-1, 1, (3,)), gym.spaces.Box(0, 100, (1,)), []

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return np.zeros(3, np.float32), {}

    def step(self, action):
        self.t += 1
        self.seen.append(float(action[0]))
        return np.zeros(3, np.float32), 1.0, False, self.t == 3, {}


@pytest.mark.parametrize(("name", "action_scale", "options"), [
    ("ppo2", True, dict(nminibatches=1)), ("ppo2", False, dict(nminibatches=1, action_scale=False)),
    ("a2c", False, dict(preset="baselines")),
    ("ddpg", None, dict(learning_starts=8, train_steps=1, buffer_size=100, batch_size=4))])
def test_actions_are_scaled_in_training_and_from_a_file(name, action_scale, options, tmp_path, capsys, uncompiled):
    """Where bounds are far from -1 and 1, as the start of a run says; not in the preset baselines, in ddpg always."""
    path, Shown.seen[:] = str(tmp_path / "m"), []
    registry.find(name).learn(Shown, 16, num_env=1, nsteps=8, save_path=path, print_interval=1e9, **options)
    told = "far from -1 and 1, where a policy begins: its actions are "
    told += {True: "brought to them;", False: "only clipped; action_scale=true", None: "?"}[action_scale]
    assert (told in capsys.readouterr().out) == (action_scale is not None)
    policy, actions, scaled = load(path), np.array([[0.1], [-0.5], [-2]]), action_scale is not False
    np.testing.assert_allclose(policy.to_env(actions), [[55], [25], [0]] if scaled else [[0.1], [0], [0]])
    assert max(Shown.seen) > 40 if scaled else max(Shown.seen) < 10
    del Shown.seen[:]
    evaluate(policy, Shown, episodes=1)
    np.testing.assert_allclose(Shown.seen, 50 if scaled else 0, atol=1)
    if name == "ppo2":
        with pytest.raises(UserError, match=f"its action_scale is {action_scale}, not {not action_scale}"):
            ppo2.learn(Shown, 16, load_path=path, num_env=1, nsteps=8, nminibatches=1, action_scale=not action_scale)


class Counting(tf.Module):
    """Layers without names in a dict of lists, one of them used twice, and a variable that is not trained."""

    out_size = 4

    def __init__(self, size, rng):
        super().__init__()
        dense = [Dense(n, 4, rng=rng) for n in (size, 4)]
        self.parts = {"body": dense, "neck": (dense[1], LayerNorm(4))}
        self.seen = tf.Variable(0, trainable=False, dtype=tf.int64)

    def __call__(self, x):
        for layer in (*self.parts["body"], *self.parts["neck"]):
            x = layer(x)
        return x


def test_weights_are_named_by_their_paths():
    module = Counting(3, np.random.default_rng(0))
    found = weights(module)
    assert list(found) == ["parts/body/0/b", "parts/body/0/w", "parts/body/1/b", "parts/body/1/w", "parts/neck/1/bias",
                           "parts/neck/1/gain", "seen"]
    assert found["parts/body/1/w"] is module.parts["neck"][0].w and found["seen"] is module.seen
    odd = tf.Module()
    odd.parts = {"a/b": tf.Variable(1.0), "a": {"b": tf.Variable(2.0)}, 1: tf.Variable(3.0), "1": tf.Variable(4.0)}
    assert {path: float(v) for path, v in weights(odd).items()} == {
        "parts/a/b": 2.0, "parts/'a/b'": 1.0, "parts/1": 3.0, "parts/'1'": 4.0}


@pytest.mark.parametrize("value_network", ["copy", "shared"])
def test_layers_without_names_and_what_is_not_trained_come_back(value_network, tmp_path, monkeypatch):
    monkeypatch.setitem(NETWORKS, "counting", lambda size, *, rng, dtype, name: Counting(size, rng))
    policy = ActorCritic(gym.spaces.Box(-1, 1, (3,)), gym.spaces.Discrete(2), network="counting", seed=4,
                         value_network=value_network)
    nets = {id(net): net for net in (policy.pi_net, policy.vf_net)}.values()
    for net in nets:
        net.seen.assign(2**40 + 1)
        net.parts["neck"][1].gain.assign([1.0, -2.0, 3.0, -4.0])
    policy.save(str(tmp_path / "m"))
    loaded, obs = load(str(tmp_path / "m")), np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    for mine, theirs in zip(policy.evaluate(tf.constant(obs)), loaded.evaluate(tf.constant(obs))):
        np.testing.assert_array_equal(*(getattr(x, "logits", x) for x in (mine, theirs)))
    assert len(weights(loaded)) == 4 + 7 * len(nets) and loaded.vf_net.seen.numpy() == 2**40 + 1


@pytest.mark.parametrize("space", [
    gym.spaces.Discrete(5, start=-2), gym.spaces.Box(-np.inf, np.inf, (2, 3)), gym.spaces.Box(-1, 1, ()),
    gym.spaces.MultiDiscrete([[3, 2], [4, 2]], start=[[0, 1], [2, -3]]), gym.spaces.MultiBinary([2, 2]),
    gym.spaces.Dict({"b": gym.spaces.Tuple([gym.spaces.MultiBinary(3)]), "a": gym.spaces.Box(0, 255, (9, 9, 3),
                                                                                             np.uint8)}),
    gym.spaces.Box(-2**63, 2**63 - 2, (2,), np.int64), gym.spaces.Box(0, 1, (2,), bool),
    gym.spaces.Box(np.array([0, -3.25]), np.array([1e300, np.inf]), dtype=np.float64)])
def test_spaces_survive_json(space):
    arrays = {}
    text = json.dumps(space_to_json(space, arrays), allow_nan=False)
    again = space_from_json(json.loads(text), ModelFile({}, {}, arrays.__getitem__, 10**6))
    assert again == space and type(again) is type(space)


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
