"""The state of environments: another one that gets it continues as the first, to the bit."""

import copy
import json

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import (
    ClipReward,
    DelayObservation,
    DiscretizeAction,
    DiscretizeObservation,
    DtypeObservation,
    FilterObservation,
    FlattenObservation,
    FrameStackObservation,
    MaxAndSkipObservation,
    NormalizeObservation,
    NormalizeReward,
    RecordEpisodeStatistics,
    RescaleAction,
    RescaleObservation,
    ReshapeObservation,
    StickyAction,
    TimeAwareObservation,
    TimeLimit,
    TransformObservation,
)
from gymnasium.wrappers import vector as vector_wrappers

from baselines_lite import UserError
from baselines_lite.common.envs.env_state import env_state, restore_env, unknown_part
from baselines_lite.common.envs.toy_envs import Identity
from baselines_lite.common.envs.vec_env import make_vec_env
from baselines_lite.common.envs.workers import WorkerError

TOYS = "baselines_lite.common.envs.toy_envs:"
IDS = [*(f"{TOYS}{name}" for name, spec in gym.registry.items()
         if getattr(spec.entry_point, "__module__", None) == TOYS[:-1]),
       *(name for name, spec in gym.registry.items() if str(spec.entry_point).startswith(
           ("gymnasium.envs.classic_control", "gymnasium.envs.toy_text", "gymnasium.envs.mujoco")))]
IDS.remove("Pusher-v4")  # which no MuJoCo of today can run

repeated = getattr(gym.wrappers, "RepeatAction", lambda env, times: env)  # not in every release


def written_and_read(state):
    """The state as a file gives it back: of nothing but plain data, in memory of its own."""
    def plain(data):
        if isinstance(data, np.ndarray):
            assert data.dtype.kind in "biuf"
            found = data.copy()
            found.flags.writeable = False
            return found
        if isinstance(data, dict):
            assert all(type(key) is str for key in data)
            return {key: plain(part) for key, part in data.items()}
        if isinstance(data, list):
            return [plain(part) for part in data]
        return json.loads(json.dumps(data))

    return plain(state)


def steps(venv, actions):
    """What the steps give, copied."""
    return copy.deepcopy([venv.step(action) for action in actions])


def equal(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, np.ndarray) and one.dtype == object:
        return equal(list(one), list(other))
    return np.array_equal(one, other, equal_nan=np.asarray(one).dtype.kind == "f")


def without_times(found):
    """Steps without the seconds that RecordEpisodeStatistics measures."""
    for *_, infos in found:
        infos.get("episode", {}).pop("t", None)
        final = infos.get("final_info", {})
        final.get("episode", {}).pop("t", None)
    return found


def check(make, before=40, after=40):
    """Steps a vector environment, and from the middle on a second one with its state. Whether episodes ended before."""
    first = make()
    first.reset(seed=[0, 1] if isinstance(first.unwrapped, SyncVectorEnv) else 0)
    first.action_space.seed(0)
    actions = [first.action_space.sample() for _ in range(before + after)]
    assert unknown_part(first) is None
    ends = any((terminated | truncated).any() for _, _, terminated, truncated, _ in steps(first, actions[:before]))
    state = written_and_read(env_state(first))
    expected = without_times(steps(first, actions[before:]))
    first.close()
    second = make()
    second.reset(seed=[70, 71] if isinstance(second.unwrapped, SyncVectorEnv) else 70)
    restore_env(second, state)
    assert equal(state, written_and_read(env_state(second)))
    found = without_times(steps(second, actions[before:]))
    second.close()
    assert equal(expected, found)
    return ends


def timed(env_id):
    """An environment as make_vec_env makes it, with episodes of 15 steps."""
    return lambda: TimeLimit(gym.make(env_id, disable_env_checker=True), 15)


@pytest.mark.parametrize("env_id", IDS)
def test_continues_exactly(env_id):
    assert check(lambda: make_vec_env(timed(env_id), 2), before=20, after=20)


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_of_other_modes_too(mode):
    """Before, at and after an episode's end: in NEXT_STEP mode it is the next step that resets."""
    for before in (14, 15, 16):
        check(lambda: make_vec_env(SyncVectorEnv([timed("CartPole-v1")] * 2, autoreset_mode=mode)), before=before)


def test_of_what_the_library_makes_of_an_id():
    assert check(lambda: make_vec_env("CartPole-v1", 2, vec="native"))
    for env_id in ("CartPole-v1", "FrozenLake-v1", "Hopper-v5"):
        assert check(lambda env_id=env_id: make_vec_env(env_id, 2), before=100)


@pytest.mark.parametrize("env_id, wrap", [
    ("CartPole-v1", lambda env: RecordEpisodeStatistics(FrameStackObservation(env, 3))),
    ("CartPole-v1", lambda env: TimeAwareObservation(StickyAction(env, 0.5))),
    ("CartPole-v1", lambda env: NormalizeReward(NormalizeObservation(env))),
    ("CartPole-v1", lambda env: DelayObservation(repeated(ClipReward(env, 0.0, 0.5), 2), 2)),
    ("CartPole-v1", lambda env: MaxAndSkipObservation(DtypeObservation(ReshapeObservation(env, (2, 2)), np.float64))),
    ("Pendulum-v1", lambda env: RescaleAction(RescaleObservation(env, 0, 1), -1, 1)),
    ("MountainCarContinuous-v0", lambda env: DiscretizeObservation(DiscretizeAction(env, 3), 10)),
    (f"{TOYS}IdentityDict-v0", lambda env: FilterObservation(env, ["answer", "noise"])),
    (f"{TOYS}IdentityDict-v0", FlattenObservation),
])
def test_of_gymnasiums_wrappers(env_id, wrap):
    check(lambda: make_vec_env(lambda: wrap(timed(env_id)()), 2))


@pytest.mark.parametrize("wrap", [vector_wrappers.RecordEpisodeStatistics, vector_wrappers.NormalizeObservation,
                                  vector_wrappers.NormalizeReward])
def test_of_gymnasiums_wrappers_of_vector_environments(wrap):
    check(lambda: wrap(make_vec_env("CartPole-v1", 2, vec="native")))


def test_of_worker_processes():
    """Starting a second worker is spared: what one environment there tells, one in this process goes on from."""
    first, here = make_vec_env(timed("CartPole-v1"), 1, vec="async"), make_vec_env(timed("CartPole-v1"), 1)
    try:
        assert unknown_part(first) is None
        for venv, seed in ((first, 0), (here, 70)):
            venv.reset(seed=[seed])
        steps(first, np.ones((20, 1), int))
        state = written_and_read(env_state(first))
        inner = first.get_attr("env_state")[0]
        expected = steps(first, np.ones((20, 1), int))
        restore_env(here.envs[0], written_and_read(inner))
        assert equal([step[:4] for step in expected], [step[:4] for step in steps(here, np.ones((20, 1), int))])
        restore_env(first, state)
        assert equal(expected, steps(first, np.ones((20, 1), int)))
        del state["layers"][0][1][1]["envs"]
        with pytest.raises(WorkerError, match="'envs'"):
            restore_env(first, state)
    finally:
        first.close()


class Steady(CartPoleEnv):
    """A CartPole of one's own."""


class Counting(gym.Wrapper):
    """What it counts is part of what it gives."""

    count = 0

    def step(self, action):
        self.count += 1
        obs, _, *rest = self.env.step(action)
        return obs, float(self.count), *rest


class Telling(Counting):
    """The same, which tells what it counts."""

    def get_state(self):
        return {"count": self.count, "past": [(self.count, np.float32(0.5)), None]}

    def set_state(self, state):
        assert state["past"] == [(state["count"], 0.5), None] and type(state["past"][0][1]) is np.float32
        self.count = state["count"]


class Mute(Telling):
    def get_state(self):
        return {"count": {self.count}}


def test_what_is_not_known_is_named():
    def named(make):
        venv = make_vec_env(make)
        venv.reset(seed=[0])
        return unknown_part(venv)

    assert named(Steady) == "Steady"
    assert named(lambda: Counting(CartPoleEnv())) == "Counting"
    assert named(lambda: Counting(Telling(CartPoleEnv()))) == "Counting"  # not known for the one inside it
    assert named(lambda: Telling(Steady())) == "Steady"
    assert named(lambda: TransformObservation(CartPoleEnv(), lambda obs: obs, None)) == "TransformObservation"
    assert named(lambda: Identity(gym.spaces.Graph(gym.spaces.Discrete(2), None))) == "Identity"
    assert unknown_part(make_vec_env("ALE/Pong-v5")) == "AtariGames"


def test_mujocos_set_state_is_not_a_class_that_offers_its_state():
    from gymnasium.envs.mujoco.hopper_v5 import HopperEnv

    class Own(HopperEnv):
        def get_state(self):
            return self.data.qpos

    assert unknown_part(make_vec_env(Own)) == "Own"


def test_of_a_class_that_offers_its_state():
    assert check(lambda: make_vec_env(lambda: Telling(timed("CartPole-v1")()), 2))
    with pytest.raises(UserError, match=r"Mute.get_state\(\) must give plain data: a set is none"):
        env_state(make_vec_env(lambda: Mute(CartPoleEnv())))


def changed(data, old, new):
    """The state with one part in place of another wherever that stands as a value of this name."""
    if isinstance(data, dict):
        return {key: new if key == old else changed(part, old, new) for key, part in data.items()}
    return [changed(part, old, new) for part in data] if isinstance(data, list) else data


PCG64 = {"bit_generator": "PCG64", "state": {"state": 1, "inc": 1}, "has_uint32": 0, "uinteger": 0}


@pytest.mark.parametrize("name, value", [
    ("state", np.zeros(5)), ("state", np.zeros(4, bool)), ("state", {"a": 1}), ("state", "text"), ("state", []),
    ("state", ["eval", "1"]), ("state", ["tuple", ["list"]]), ("state", np.array(["a"] * 4)), ("state", object()),
    ("_np_random", 3), ("_np_random", ["generator"]), ("_np_random", ["generator", {}]),
    ("_np_random", ["generator", {**PCG64, "bit_generator": "MT19937"}]),
    ("_np_random", ["generator", {**PCG64, "state": {"state": -1, "inc": 2**200}}]),
    ("action_space", [None, None]), ("action_space", None), ("gravity", "9.8"), ("_elapsed_steps", ["list"]),
    ("envs", []), ("envs", None), ("layers", []), ("layers", [["os.system", {}]]), ("layers", None),
])
def test_what_cannot_be_a_state_is_refused(name, value):
    venv = make_vec_env(timed("CartPole-v1"))
    venv.reset(seed=[0])
    with pytest.raises(ValueError):
        restore_env(venv, changed(env_state(venv), name, value))


def test_names_that_an_environment_has_not_or_does_not_keep_are_refused():
    venv = make_vec_env(timed("CartPole-v1"))
    venv.reset(seed=[0])
    for more in ({"step": None}, {"__class__": "Steady"}, {"env": None}, {"render_mode": "human"}):
        state = env_state(venv)
        state["envs"][0]["layers"][-1][1].update(more)
        with pytest.raises(ValueError, match="consists of"):
            restore_env(venv, state)


def test_of_mujocos_data_only_numbers_can_be_set():
    venv = make_vec_env("Hopper-v5")
    venv.reset(seed=[0])
    data = env_state(venv)["envs"][0]["layers"][-1][1]["data"]
    assert {"qpos", "qacc_warmstart", "xpos", "time"} <= data.keys()
    assert all(array.dtype == np.float64 for array in map(np.asarray, data.values()))
    for wrong in ({**data, "qpos": data["qpos"][1:]}, {**data, "moment_rownnz": np.zeros(1, np.int32)}, {}):
        with pytest.raises(ValueError):
            restore_env(venv, changed(env_state(venv), "data", wrong))


def test_a_recorder_of_videos_is_known(tmp_path):
    venv = SyncVectorEnv([lambda: gym.make("CartPole-v1", render_mode="rgb_array")])
    venv = vector_wrappers.RecordVideo(venv, str(tmp_path / "new"), step_trigger=lambda step: False)
    assert unknown_part(venv) is None


def test_how_many_environments_there_are_is_not_up_to_a_file():
    venv = gym.vector.SyncVectorEnv([lambda: gym.make("CartPole-v1")] * 2)
    venv.reset(seed=0)
    assert "num_envs" not in str(env_state(venv))
