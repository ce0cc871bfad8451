"""Model files of strangers: each is a policy, or refused in a sentence; none imports anything or takes much memory."""

import copy
import inspect
import json
import os
import sys
from collections import Counter
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import save

from baselines_lite import UserError, load
from baselines_lite.common.networks.layers import Blank, runs_in_numpy
from baselines_lite.common.networks.parameters import weights
from baselines_lite.common.policies.actor_critic import ActorCritic
from baselines_lite.common.policies.deterministic_policy import DeterministicPolicy
from baselines_lite.common.policies.model_file import load_into
from baselines_lite.common.policies.q_policy import QPolicy
from tests import MUTANTS

VECTOR, CHOICE = gym.spaces.Box(-1, 1, (3,)), gym.spaces.Discrete(3)
PICTURE = gym.spaces.Box(0, 255, (4, 9, 9), np.uint8)
NESTED = gym.spaces.Dict({"a": gym.spaces.Tuple([gym.spaces.MultiBinary([2, 2]), gym.spaces.Discrete(3, start=-1)]),
                          "b": gym.spaces.Box(np.array([0, -3.5]), np.array([1, np.inf]), dtype=np.float64)})
MLP = dict(network_options={"num_layers": 1, "num_hidden": 4})
CNN = dict(network="cnn", network_options={"convs": "2@4/2", "num_hidden": 3})
POLICIES = {
    "mlp": lambda: ActorCritic(VECTOR, VECTOR, **MLP, normalize_observations=True, normalize_rewards=True, seed=1),
    "nested": lambda: ActorCritic(NESTED, gym.spaces.MultiDiscrete([[2, 3], [4, 2]]), network_options={"sizes": "3,2"}),
    "lstm": lambda: ActorCritic(VECTOR, CHOICE, network="lstm", network_options={"nlstm": 2, "layer_norm": True}),
    "games": lambda: ActorCritic(PICTURE, CHOICE, **CNN, value_network="shared"),
    "q": lambda: QPolicy(VECTOR, CHOICE, **MLP, hiddens="3"),
    "pi": lambda: DeterministicPolicy(VECTOR, VECTOR, **MLP),
}
INFO = {"algorithm": "ppo2", "env": "CartPole-v1", "config": {"gamma": 0.99}, "atari": None,
        "versions": {"numpy": "2"}}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """For each kind: the policy and the bytes of its file."""
    found, path = {}, tmp_path_factory.mktemp("saved") / "model"
    for name, make in POLICIES.items():
        policy, rng = make(), np.random.default_rng(0)
        policy.info = copy.deepcopy(INFO)
        if name == "games":
            policy.info["atari"] = {"frame_stack": 4, "sticky": 0.25}
        if policy.normalize.obs is not None:
            policy.normalize.update(rng.normal(size=(5, 2, 3)), rng.normal(size=(5, 2)), np.zeros((5, 2)), NoComm())
        policy.save(str(path))
        found[name] = policy, path.read_bytes()
    return found


class NoComm:
    def gather(self, value):
        return [value]


def split(data):
    """A model file's metadata, header without them, and tensors' bytes."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    return json.loads(header.pop("__metadata__")["baselines_lite"]), header, data[8 + length :]


def joined(metadata, header, body):
    """The file of parts that may be nonsense; metadata may be text."""
    text = metadata if isinstance(metadata, str) else json.dumps(metadata)
    head = json.dumps({"__metadata__": {"baselines_lite": text}, **header}).encode()
    return len(head).to_bytes(8, "little") + head + body


def edited(data, *path, value):
    """The file with another value at a path in its metadata; none: without what is there."""
    metadata, header, body = split(data)
    place = metadata
    for key in path[:-1]:
        place = place[key]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return joined(metadata, header, body)


def with_tensor(policy, name, tensor, path):
    """The policy's file with another tensor in the place of one, or with one more."""
    policy.save(str(path))
    metadata, _, _ = split(path.read_bytes())
    tensors = {n: v.numpy() if hasattr(v, "numpy") else v for n, v in policy.contents().items()} | {name: tensor}
    return save(tensors, metadata={"baselines_lite": json.dumps(metadata)})


def refusal(path, data, policy=None, **options):
    """The sentence that a file is refused with, by `load` or into a policy."""
    path.write_bytes(data)
    with pytest.raises(UserError) as told:
        load_into(policy, path) if policy else load(path, **options)
    text = str(told.value)
    assert "\n" not in text and len(text) < 900 and text.startswith(f"the model file {str(path)!r} ")
    return text


BIG = 10**9
BOUNDS = {"shape": [10**5, 10**5, 3], "dtype": "uint8", "value": 0}
COUNTS = {"shape": [3], "dtype": "int64", "value": BIG}
DISCRETE = {"kind": "Discrete", "n": BIG, "start": 0}
SIZES = [
    ("mlp", "settings/network_options/num_hidden", BIG),
    ("mlp", "settings/network_options/num_layers", BIG),
    ("mlp", "settings/network_options/sizes", "30000,30000"),
    ("lstm", "settings/network_options/nlstm", BIG),
    ("games", "settings/network_options/num_hidden", BIG),
    ("games", "settings/network_options/convs", "999999999@4/2"),
    ("q", "settings/hiddens", "999999999"),
    ("mlp", "observation_space/low/shape", [BIG]),
    ("mlp", "action_space/low/shape", [BIG, BIG]),
    ("games", "observation_space", {"kind": "Box", "low": BOUNDS, "high": BOUNDS}),
    ("mlp", "observation_space", DISCRETE),
    ("mlp", "observation_space", DISCRETE | {"n": 10**6}),
    ("q", "action_space", DISCRETE),
    ("q", "action_space/n", 10**30),
    ("mlp", "observation_space", {"kind": "MultiBinary", "n": [BIG, 2]}),
    ("nested", "action_space", {"kind": "MultiDiscrete", "nvec": COUNTS, "start": COUNTS}),
    ("nested", "observation_space", {"kind": "Tuple", "spaces": [DISCRETE | {"n": 9}] * 9000}),
]


@pytest.mark.parametrize(("kind", "path", "value"), SIZES)
def test_sizes_are_those_of_the_tensors(saved, tmp_path, kind, path, value):
    """Before anything is allocated: memory grows by less than twice the file's size and 64 MiB."""
    policy, data = saved[kind]
    data = edited(data, *path.split("/"), value=value)
    with Memory() as memory:
        refusal(tmp_path / "m", data)
        refusal(tmp_path / "m", data, policy)
    assert memory.grown < 2 * len(data) + 64 * 2**20


class Memory:
    """By how many bytes this process grew at most within a block; 0 where the system does not tell."""

    def __enter__(self):
        self.linux = os.access("/proc/self/clear_refs", os.W_OK)
        if self.linux:
            Path("/proc/self/clear_refs").write_text("5")  # forget the peak until now
        self.start, self.grown = self.read("VmRSS"), 0
        return self

    def __exit__(self, *_):
        self.grown = self.read("VmHWM") - self.start

    def read(self, name):
        if not self.linux:
            return 0
        return next(int(line.split()[1]) * 1024 for line in Path("/proc/self/status").read_text().splitlines()
                    if line.startswith(name))


def test_a_large_file_takes_twice_its_size(tmp_path):
    """56 MB, most of it one tensor."""
    space = gym.spaces.Box(-1, 1, (20_000,))
    blank = Blank([30_000_000] * 20)
    policy = ActorCritic(space, CHOICE, network_options={"num_layers": 1, "num_hidden": 700}, value_network="shared",
                         weights_rng=blank)
    for variable in policy.variables:
        variable.assign(tf.zeros(variable.shape))
    policy.save(str(tmp_path / "m"))
    del policy
    with Memory() as memory:
        policy = load(tmp_path / "m")
    assert memory.grown < 2 * (tmp_path / "m").stat().st_size + 64 * 2**20
    assert weights(policy)["pi_net/layers/0/w"].shape == (20_000, 700)


FAULTS = [
    ("format", 3, "has format 3, but this version reads only 4"), ("format", None, "has format None"),
    ("policy", "Nobody", "of the class Nobody, which is not loaded"), ("policy", None, "damaged"),
    ("settings", None, "damaged"), ("settings", [], "damaged"), ("settings/network", None, "damaged"),
    ("settings/compute", "float8", "computes in float8"), ("settings/reward_gamma", "x", "must be a number"),
    ("settings/reward_gamma", float("nan"), "must be finite"), ("settings/value_network", "cpoy", "did you mean copy"),
    ("settings/normalize_rewards", [], "must be true or false"), ("settings/normalize_rewards", None, "settings are"),
    ("settings/normalize_rewards", False, "normalize/ret_count is of shape [], not missing"),
    ("settings/seed", 3, "its settings are"), ("settings/observation_space", 3, "damaged"),
    ("settings/network_options/num_hiden", 3, "did you mean num_hidden"), ("settings/network_options", [], "damaged"),
    ("settings/network_options/num_hidden", 5, "pi_head/w is of shape [4, 3], not of shape [5, 3]"),
    ("settings/network", "mpl", "did you mean mlp"),
    ("observation_space", None, "damaged"), ("observation_space/kind", "Text", "unknown kind of space"),
    ("observation_space/low/dtype", "O", "damaged"), ("observation_space/low/value", "nan", "damaged"),
    ("observation_space/low/value", 5.0, "damaged"), ("observation_space/low/shape", [-3], "size of -3"),
    ("observation_space/low/value", 1e308, "damaged"), ("observation_space/low/dtype", "float64", "and float32"),
    ("observation_space", {"kind": "Discrete", "n": True, "start": 0}, "size of True"),
    ("observation_space", {"kind": "Dict", "spaces": []}, ""),
    ("algorithm", 5, "its algorithm is 5"), ("config", [], "its config is"), ("atari", [], "its atari is"),
    ("atari", {"frame_stack": 4}, "do not show 4 frames"), ("atari", {"frame_skip": 0}, "at least 1"),
    ("atari", {"no": 0}, "unknown option"),
]


@pytest.mark.parametrize(("path", "value", "words"), FAULTS)
def test_faults_of_metadata(saved, tmp_path, path, value, words):
    assert words in refusal(tmp_path / "m", edited(saved["mlp"][1], *path.split("/"), value=value))


def test_faults_of_json(saved, tmp_path):
    policy, data = saved["mlp"]
    metadata, header, body = split(data)
    good, deep = json.dumps(metadata), "[" * 50_000 + "]" * 50_000
    for text in ("[]", "5", "null", "", "{", '"' * 9, deep, f'{{"format": 4, "settings": {deep}}}', "[" * 100_000,
                 good[:-1] + ', "format": 4}', good.replace("0.99", "9" * 5000)):
        for into in (None, policy):
            refusal(tmp_path / "m", joined(text, header, body), into)
    nest = {"kind": "Discrete", "n": 2, "start": 0}
    for _ in range(400):
        nest = {"kind": "Tuple", "spaces": [nest]}
    refusal(tmp_path / "m", edited(data, "observation_space", value=nest))
    with Memory() as memory:  # a header that its metadata fill
        refusal(tmp_path / "m", joined("[" + "[]," * 300_000 + "[]]", header, body))
        assert "its header would take" in refusal(tmp_path / "m", joined("[" + "[]," * 3_000_000 + "[]]", header, body))
    assert memory.grown < 64 * 2**20 + 2 * 10**7
    assert "not written by baselines_lite" in refusal(tmp_path / "m", save({"x": np.zeros(3)}))


def test_faults_of_tensors(saved, tmp_path):
    policy, path = saved["mlp"][0], tmp_path / "m"
    before = {name: np.array(value) for name, value in policy.contents().items()}
    w = policy.pi_head.w.numpy()
    for name, tensor, words in [
            ("weights/pi_head/w", w * np.nan, "w is not finite"), ("weights/pi_head/w", w + np.inf, "not finite"),
            ("weights/pi_head/w", w.astype(np.float64), "is float64, not float32"),
            ("weights/pi_head/w", w.T.copy(), "of shape [3, 4], not of shape [4, 3]"),
            ("weights/pi_head/x", w, "pi_head/x is of shape [4, 3], not missing"), ("other", w, "other is of shape"),
            ("normalize/obs_mean", np.zeros(2), "of shape [2], not of shape [3]"),
            ("normalize/obs_mean", np.full(3, np.nan), "not finite"), ("normalize/obs_m2", -np.ones(3), "is -1"),
            ("normalize/ret_count", np.array(-2.0), "is -2"), ("normalize/obs_count", np.array(1e-300), "is 1e-300"),
            ("normalize/obs_count", np.array(10, np.int64), "is int64, not float64")]:
        data = with_tensor(policy, name, tensor, path)
        assert words in refusal(path, data) and words in refusal(path, data, policy)
    for name, value in policy.contents().items():
        np.testing.assert_array_equal(value, before[name])


def test_keys_that_would_come_back_as_others_are_refused_before_anything_is_written(tmp_path):
    def policy(*keys):
        return ActorCritic(gym.spaces.Dict([(key, CHOICE) for key in keys]), CHOICE, **MLP)

    with pytest.raises(UserError, match=r"cannot be saved: its space has the key \(0, 1\), which is neither text nor"):
        policy((0, 1)).description()
    path = str(tmp_path / "m")
    for keys in (("b", "a"), (2, 1), (0.5, np.int64(1))):
        mine = policy(*keys)
        mine.save(path)
        assert load(path).observation_space == mine.observation_space


@pytest.mark.skipif("dtype" not in inspect.signature(gym.spaces.Discrete).parameters, reason="Gymnasium has one type")
def test_a_file_keeps_the_type_of_indices(saved, tmp_path):
    space, path = gym.spaces.Discrete(4, start=2, dtype=np.int32), tmp_path / "m"
    ActorCritic(space, space, **MLP).save(str(path))
    found = load(str(path))
    assert found.observation_space == found.action_space == space != gym.spaces.Discrete(4, start=2)
    assert found.action_space.contains(found.predict(np.int32(5))[0])
    assert "dtype" not in split(saved["q"][1])[0]["action_space"]  # as in older files
    refusal(path, edited(path.read_bytes(), "action_space", "dtype", value="float32"))


def test_nothing_is_imported_that_nobody_named(saved, main, tmp_path, monkeypatch):
    (tmp_path / "canary.py").write_text("raise SystemExit('imported')")
    (tmp_path / "lab.py").write_text("from baselines_lite.common.networks.builders import mlp as net\n")
    monkeypatch.syspath_prepend(tmp_path)
    path, (policy, data) = tmp_path / "m", saved["mlp"]
    for network in ("canary:net", "this:s", "os:system", "builtins:print", "unittest.mock:Mock", "canary:", ":net",
                    "a.b:c:d", "tensorflow:keras", "baselines_lite.ppo2:learn"):
        evil = edited(data, "settings", "network", value=network)
        words = refusal(path, evil)
        assert f"give --network={network}, or in Python" in words
        assert f"its network is {network}, not mlp" in refusal(path, evil, policy)
        done = main(f"--load_path={path}", "--play")
        assert done.returncode == 2 and done.stderr == f"error: {words}\n"
    path.write_bytes(edited(data, "env", value="canary:CartPole-v1"))
    done = main(f"--load_path={path}", "--play")
    assert done.returncode == 2 and "give --env=canary:CartPole-v1" in done.stderr and done.stderr.count("\n") == 1
    path.write_bytes(edited(data, "env", value=None))
    done = main(f"--load_path={path}", "--play")
    assert done.returncode == 2 and "give --env" in done.stderr
    assert not {"canary", "this", "lab"} & sys.modules.keys()

    data = edited(data, "settings", "network", value="lab:net")
    assert "give --network=lab:net, or in Python load(path, network='lab:net')" in refusal(path, data)
    assert "has the network lab:net, not mlp" in refusal(path, data, network="mlp")
    assert "lab" not in sys.modules
    assert load(path, network="lab:net").network == "lab:net"
    assert load(path).network == "lab:net"  # imported by now
    monkeypatch.delitem(sys.modules, "lab")


HOSTILE = [
    None, True, False, 0, -1, 1, 2, 3, 4, 5, 7, 10**9, -(10**9), 2**31, 2**63, 10**30, 10**400, 0.5, -0.0, 1e308,
    float("nan"), float("inf"), "", "x", "mlp", "lstm", "cnn", "none", "inf", "-inf", "nan", "float32", "float64",
    "int64", "O", "shared", "canary:net", "this:s", "os:system", "ActorCritic", "QPolicy", "Box", "Tuple", "9" * 400,
    "1," * 400 + "1", "1@1/1", "spaces/0", "weights/pi_head/w", [], [[]], {}, {"x": 1}, [0], [10**6], [3], [2] * 70,
    {"tensor": "spaces/0"}, {"kind": "Discrete", "n": 3, "start": 0}]


def places(tree, path=()):
    """Every path into nested dicts and lists."""
    yield from [path] if path else []
    for key, inner in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        yield from places(inner, (*path, key))


def mutate_metadata(rng, data):
    metadata, header, body = split(data)
    for _ in range(rng.integers(1, 3)):
        path = list(places(metadata))[rng.integers(len(list(places(metadata))))]
        place = metadata
        for key in path[:-1]:
            place = place[key]
        action = rng.integers(4)
        if action == 0:
            del place[path[-1]]
        elif action == 1 and isinstance(place, dict):
            place[path[-1] + "x"] = place.pop(path[-1])
        else:
            place[path[-1]] = copy.deepcopy(HOSTILE[rng.integers(len(HOSTILE))])
        if not metadata:
            break
    return joined(metadata, header, body)


def mutate_header(rng, data):
    metadata, header, body = split(data)
    name = list(header)[rng.integers(len(header))]
    entry, action = header[name], rng.integers(8)
    if action == 0:
        entry["dtype"] = str(rng.choice(["F64", "F16", "BF16", "I32", "U8", "BOOL", "F8_E4M3", "F4", "C64", "X"]))
    elif action == 1:
        entry["shape"] = [int(n) for n in rng.choice([0, 1, 2, 3, 4, 12, 10**9, 2**62], size=rng.integers(5))]
    elif action == 2:
        entry["shape"] = entry["shape"][::-1]
    elif action == 3:
        entry["data_offsets"] = [int(n) for n in rng.integers(0, len(body) + 9, size=2)]
    elif action == 4:
        del header[name]
    elif action == 5:
        header[name + "x"] = header.pop(name)
    elif action == 6:
        other = list(header)[rng.integers(len(header))]
        header[name], header[other] = header[other], header[name]
    else:
        header["more"] = {"dtype": "F32", "shape": [1], "data_offsets": [len(body), len(body) + 4]}
        body += rng.bytes(4)
    return joined(metadata, header, body)


def mutate_bytes(rng, data):
    """Some bits flipped: in the header, or anywhere."""
    changed, end = bytearray(data), 8 + int.from_bytes(data[:8], "little")
    for place in rng.integers(0, end if rng.random() < 0.7 else len(data), size=rng.integers(1, 4)):
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def truncate(rng, data):
    return data[: rng.integers(len(data))] + (rng.bytes(rng.integers(9)) if rng.random() < 0.3 else b"")


def mutate_numbers(rng, data):
    """Some floats of the tensors replaced by ones that are none."""
    metadata, header, body = split(data)
    changed = bytearray(body)
    for _ in range(rng.integers(1, 3)):
        at = 4 * int(rng.integers(len(body) // 4))
        changed[at : at + 4] = np.float32(rng.choice([np.nan, np.inf, -np.inf, -1, 0, 3e38, 1e-40])).tobytes()
    return joined(metadata, header, bytes(changed))


def test_a_fuzz(saved, tmp_path, monkeypatch):
    """1,500 files, a third also loaded into a policy: each is a policy that acts, or refused in a sentence."""
    (tmp_path / "canary.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    rng, results, modules = np.random.default_rng(0), Counter(), set(sys.modules)
    before = {kind: [np.array(value) for value in policy.contents().values()] for kind, (policy, _) in saved.items()}
    for i in range(MUTANTS or 1500):
        kind = list(POLICIES)[i % len(POLICIES)]
        policy, data = saved[kind]
        mutate = (mutate_metadata, mutate_header, mutate_bytes, truncate, mutate_metadata, mutate_numbers)[i // 6 % 6]
        path = tmp_path / str(i)  # to write one file again and again is slow on some file systems
        path.write_bytes(mutate(rng, data))
        for into in (None, policy) if i // 36 % 3 == 0 else (None,):
            try:
                found = into or load(path)
                if into:
                    load_into(into, path)
            except UserError as error:
                assert "\n" not in str(error) and len(str(error)) < 900, error
                results[mutate.__name__, "refused"] += 1
                assert into is None or all(map(np.array_equal, before[kind], into.contents().values()))
            else:
                results[mutate.__name__, "taken"] += 1
                act_once(found)
                if into:
                    restore(policy, before[kind])
        path.unlink()
    assert not set(sys.modules) - modules
    assert results["mutate_metadata", "taken"] > 50 and results["mutate_numbers", "taken"] > 50 and len(results) >= 9


def act_once(policy):
    """Finite weights, and an action."""
    assert all(np.isfinite(value).all() for value in policy.contents().values())
    if runs_in_numpy(getattr(policy, "pi_net", None) or policy.net):
        with np.errstate(all="ignore"):
            policy.actor()(np.zeros((1, *policy.encoder.shape), policy.encoder.dtype), None)


def restore(policy, values):
    """Puts arrays in the order of `contents` back."""
    mine = policy.contents()
    policy.normalize.load({name.removeprefix("normalize/"): value for name, value in zip(mine, values)
                                 if name.startswith("normalize/")})
    for own, value in zip(mine.values(), values):
        if hasattr(own, "assign"):
            own.assign(value)
