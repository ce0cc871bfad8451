"""The docs' table of what goes with which algorithm: every cell is tried."""

import re

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from baselines_lite import UserError, evaluate, load, registry
from tests.conftest import ROOT

PICTURE = spaces.Box(0, 255, (40, 40, 1), np.uint8)
VECTOR, CHOICE = spaces.Box(-1, 1, (3,)), spaces.Discrete(3)
# What an algorithm's environments take where a row does not say it.
ACTIONS = {"ddpg": VECTOR}
CONVS = {"convs": "4@8/4,4@3/2"}
SMALL_CNN = {**CONVS, "num_hidden": 8}


class Anything(gym.Env):
    """Samples of an observation space; refuses actions that are not in its action space. Episodes of five steps."""

    def __init__(self, observation_space, action_space):
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        if isinstance(self.action_space, spaces.Box):
            action = np.asarray(action, self.action_space.dtype)
        assert self.action_space.contains(action), action
        self.t += 1
        return self.observation_space.sample(), 1.0, False, self.t == 5, {}


# Each of these is a function from the usual action space to (environment, options).
def observing(space, **options):
    return lambda actions: ((lambda: Anything(space, actions)), options)


def acting(space):
    return lambda _: ((lambda: Anything(VECTOR, space)), {})


def with_network(name, **options):
    return observing(PICTURE if name.startswith(("cnn", "conv")) else VECTOR, network=name, **options)


def resetting(mode):
    return lambda actions: (SyncVectorEnv([lambda: Anything(VECTOR, actions)] * 2, autoreset_mode=mode), {})


def made_by_id(vec):
    return lambda actions: ("Pendulum-v1" if actions == VECTOR else "CartPole-v1", {"vec": vec})


def native(actions):
    def venv(num_envs, **_):
        return SyncVectorEnv([lambda: Anything(VECTOR, actions)] * num_envs)

    gym.register("Native-v0", entry_point=lambda: Anything(VECTOR, actions), vector_entry_point=venv)
    return "Native-v0", {"vec": "native"}


ROWS = {
    "observations: Box (vector, matrix, numbers of any type, a picture as numbers)": [
        observing(VECTOR), observing(spaces.Box(-9, 9, (2, 3), np.float64)),
        observing(spaces.Box(0, 9, (2,), np.int64)), observing(spaces.Box(0, 255, (6, 6, 1), np.uint8), network="mlp")],
    "observations: Box (picture: uint8, three-dimensional)": [observing(PICTURE, network="cnn", **SMALL_CNN)],
    "observations: Discrete": [observing(spaces.Discrete(4, start=-2))],
    "observations: MultiDiscrete": [observing(spaces.MultiDiscrete([2, 3])),
                                    observing(spaces.MultiDiscrete([[2, 3], [4, 2]]))],
    "observations: MultiBinary": [observing(spaces.MultiBinary(3)), observing(spaces.MultiBinary([2, 2]))],
    "observations: Tuple, Dict, nested": [
        observing(spaces.Tuple([spaces.Discrete(2), spaces.Dict({"a": VECTOR, "b": spaces.MultiBinary(2)})]))],
    "observations: Dict with a picture": [
        observing(spaces.Dict({"camera": PICTURE, "speed": VECTOR}), network="cnn", **SMALL_CNN)],
    "observations: Text, Sequence, Graph, OneOf": [observing(spaces.Text(4)),
                                                   observing(spaces.Sequence(spaces.Discrete(2)))],
    "actions: Discrete": [acting(CHOICE), acting(spaces.Discrete(3, start=4))],
    "actions: MultiDiscrete": [acting(spaces.MultiDiscrete([2, 3])), acting(spaces.MultiDiscrete([[2, 3], [4, 2]]))],
    "actions: MultiBinary": [acting(spaces.MultiBinary(3)), acting(spaces.MultiBinary([2, 2]))],
    "actions: Box of any shape": [acting(spaces.Box(-1, 1, (2,))), acting(spaces.Box(-1, 3, (2, 2)))],
    "actions: Box without bounds, or with some": [acting(spaces.Box(-np.inf, 0.5, (2,))),
                                                  acting(spaces.Box(-np.inf, np.inf, (2,)))],
    "actions: Tuple, Dict": [acting(spaces.Tuple([CHOICE, CHOICE])), acting(spaces.Dict({"a": CHOICE}))],
    "network: mlp": [with_network("mlp", num_hidden=8)],
    "network: cnn, cnn_small": [with_network("cnn", **SMALL_CNN), with_network("cnn_small", **SMALL_CNN)],
    "network: conv_only": [with_network("conv_only", **CONVS)],
    "network: lstm, lnlstm": [with_network("lstm", nlstm=8), with_network("lnlstm", nlstm=8)],
    "network: cnn_lstm, cnn_lnlstm": [with_network("cnn_lstm", nlstm=8, **SMALL_CNN),
                                      with_network("cnn_lnlstm", nlstm=8, **SMALL_CNN)],
    "environments: --vec=sync": [made_by_id("sync")],
    "environments: --vec=async": [made_by_id("async")],
    "environments: --vec=native": [native],
    "environments: Atari": [lambda _: ("PongNoFrameskip-v4", {"network": "cnn_small", **SMALL_CNN})],
    "environments: VectorEnv in SAME_STEP mode": [resetting(AutoresetMode.SAME_STEP)],
    "environments: VectorEnv in NEXT_STEP mode": [resetting(AutoresetMode.NEXT_STEP)],
    "environments: VectorEnv in DISABLED mode": [resetting(AutoresetMode.DISABLED)],
}
# The least that each algorithm needs to make one update.
_FIT = dict(num_env=2, nsteps=8, vf_iters=1, vf_minibatches=2)
_NATURAL = dict(_FIT, cg_iters=3)
_EPOCHS = dict(num_env=2, nsteps=8, nminibatches=2, noptepochs=1)
_PLAIN = dict(num_env=2, nsteps=8, log_interval=1)
_REPLAY = dict(num_env=2, nsteps=8, learning_starts=8, batch_size=4, buffer_size=100)
SHORT = {"vpg": _FIT, "npg": _NATURAL, "trpo_mpi": _NATURAL, "ppo1": _EPOCHS, "ppo2": _EPOCHS, "a2c": _PLAIN,
         "acktr": _PLAIN, "acer": dict(_PLAIN, replay_start=8, replay_ratio=1),
         "deepq": dict(_REPLAY, train_freq=4, hiddens="8"), "ddpg": dict(_REPLAY, train_steps=2, sizes="8,8")}


def table():
    """The docs' table as {(row, algorithm): cell}."""
    lines = (ROOT / "docs/spaces.md").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| what | "))
    names = [cell.strip() for cell in lines[start].strip("|").split("|")][1:]
    cells = {}
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            return cells
        row, *found = [cell.strip() for cell in line.strip("|").split("|")]
        cells |= {(re.sub(r"`", "", row), name): cell for name, cell in zip(names, found, strict=True)}
    return cells


CELLS = table()


def test_the_table_has_every_row_and_every_algorithm():
    assert {row for row, _ in CELLS} == set(ROWS)
    assert {name for _, name in CELLS} == set(registry.ALGORITHMS) == set(SHORT)
    assert set(CELLS.values()) <= {"yes", "no"}


def test_the_registry_says_the_same():
    rows = {"Discrete": "actions: Discrete", "MultiDiscrete": "actions: MultiDiscrete",
            "MultiBinary": "actions: MultiBinary", "Box": "actions: Box of any shape", "mlp": "network: mlp",
            "cnn": "network: cnn, cnn_small", "lstm": "network: lstm, lnlstm",
            "cnn_lstm": "network: cnn_lstm, cnn_lnlstm"}
    for name, row in registry.ALGORITHMS.items():
        able = [*row.actions, *row.networks.split(", ")]
        assert set(able) <= rows.keys()
        assert able == [what for what in rows if CELLS[rows[what], name] == "yes"], name


@pytest.mark.parametrize(("row", "name"), CELLS)
def test_every_cell(row, name, uncompiled, tmp_path):
    """With each network, and in an environment of its id, also from its model file."""
    for case in ROWS[row]:
        env, options = case(ACTIONS.get(name, CHOICE))
        options = {**SHORT[name], **options, "threads": 1, "print_interval": 1e9}
        if CELLS[row, name] == "yes":
            policy = registry.find(name).learn(env, 32, **options)
            assert all(np.isfinite(v.numpy()).all() for v in policy.trainable_variables)
            if row.startswith(("network", "environments: --vec=sync")):
                policy.save(str(tmp_path / "model"))
                assert np.isfinite(evaluate(load(str(tmp_path / "model")), env, episodes=1)).all()
        else:
            options.pop("sizes", None)  # of the network that goes with it
            with pytest.raises(UserError, match="support"):
                registry.find(name).learn(env, 32, **options)
