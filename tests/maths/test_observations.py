"""Every observation space as features: against Gymnasium's own flattening, and pictures beside vectors."""

import tracemalloc

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces
from gymnasium.spaces.utils import flatten, flatten_space

from baselines_lite.common.envs.vec_env import stack
from baselines_lite.common.networks.builders import takes_pictures
from baselines_lite.common.networks.observations import Encoder
from baselines_lite.common.policies.actor_critic import ActorCritic
from baselines_lite.common.system.errors import UserError
from baselines_lite.common.system.mpi import Comm

PICTURE = spaces.Box(0, 255, (20, 24, 3), np.uint8)
SPACES = {
    "vector": spaces.Box(-3, 3, (4,)),
    "matrix": spaces.Box(-3, 3, (2, 3), np.float64),
    "scalar": spaces.Box(-3, 3, ()),
    "integers": spaces.Box(-5, 9, (3,), np.int64),
    "discrete": spaces.Discrete(5, start=-2),
    "multidiscrete": spaces.MultiDiscrete([3, 2, 4], start=[1, 0, -1]),
    "multidiscrete 2-d": spaces.MultiDiscrete([[3, 2], [4, 2]]),
    "multibinary": spaces.MultiBinary(4),
    "multibinary 2-d": spaces.MultiBinary([2, 3]),
    "tuple": spaces.Tuple([spaces.Discrete(3), spaces.Box(-1, 1, (2,))]),
    "nested dict": spaces.Dict({"z": spaces.Discrete(2), "a": spaces.Dict({
        "k": spaces.Tuple([spaces.MultiBinary(2), spaces.Box(-1, 1, (2, 2))]), "b": spaces.MultiDiscrete([2, 3])})}),
}


def samples(space, count):
    space.seed(0)
    return [space.sample() for _ in range(count)]


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_vectors_are_gymnasiums_flattening(space):
    encoder, obs = Encoder(space), samples(space, 6)
    expected = np.stack([flatten(space, o) for o in obs])
    assert encoder.shape == flatten_space(space).shape == expected.shape[1:] and encoder.dtype == np.float32
    out = np.empty((6, *encoder.shape), np.float32)
    batch = stack(obs)
    np.testing.assert_allclose(encoder.features(batch, encoder.vector(batch), out), expected, atol=1e-6)
    assert encoder.batch(batch) == 6


@pytest.mark.parametrize("space", [spaces.Discrete(20_000, start=3), spaces.MultiDiscrete([20_000, 2])])
def test_one_hots_take_memory_for_what_is_seen_only(space):
    obs = np.stack(samples(space, 2))
    tracemalloc.start()
    vector = Encoder(space).vector(obs)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(vector, [flatten(space, o) for o in obs])
    assert peak < 20 * vector.nbytes


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint64])
def test_indices_may_be_of_any_type(dtype):
    obs = np.array([[1, 4], [3, 7]])
    found, expected = (Encoder(spaces.MultiDiscrete([3, 4], of, start=[1, 4])).vector(obs.astype(of))
                       for of in (dtype, np.int64))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(Encoder(spaces.Discrete(9)).vector(obs[0].astype(dtype)), np.eye(9)[obs[0]])


def test_what_of_features_is_no_picture():
    numbers = spaces.Box(-1, 1, (3,))
    picture = spaces.Box(0, 255, (5, 5, 3), np.uint8)  # of an odd number of bytes
    for space, count in ((numbers, 3), (picture, None), (spaces.Dict({"a": picture, "b": numbers}), 3)):
        policy = ActorCritic(space, spaces.Discrete(2), network="mlp" if space is numbers else "cnn",
                             network_options={} if space is numbers else {"convs": "4@3/2"})
        obs = samples(space, 2)
        features = policy.features(stack(obs))
        found = policy.encoder.numbers(features)
        if count is None:
            assert found is None
        else:
            np.testing.assert_array_equal(found, [o["b"] if space is not numbers else o for o in obs])
            found[1] = np.nan  # a view: what is written there is in the features
            assert np.isnan(policy.encoder.numbers(features)[1]).all()


def test_numbers_are_normalised_and_one_hots_are_not():
    space = spaces.Dict({"a": spaces.Discrete(3), "b": spaces.Box(-np.inf, np.inf, (2,)), "c": spaces.MultiBinary(1)})
    policy = ActorCritic(space, spaces.Discrete(2), normalize_observations=True)
    np.testing.assert_array_equal(policy.encoder.normalized, [False] * 3 + [True] * 2 + [False])
    raw = np.random.default_rng(0).normal(5, 3, size=(50, 1, 6))
    policy.normalize.update(raw, np.zeros((50, 1)), np.zeros((50, 1), bool), Comm())
    obs = {"a": np.array([1]), "b": np.array([[5.0, 8.0]]), "c": np.array([[1]], np.int8)}
    features = policy.features(obs)[0]
    np.testing.assert_array_equal(features[[0, 1, 2, 5]], [0, 1, 0, 1])
    expected = (np.array([5, 8]) - raw[:, 0, 3:5].mean(0)) / raw[:, 0, 3:5].std(0)
    np.testing.assert_allclose(features[3:5], expected, rtol=1e-5)


def test_a_large_mean_beside_other_parts_eats_no_digits():
    box = spaces.Box(-np.inf, np.inf, (1,), np.float64)
    found = []
    for space, wrap in ((box, lambda x: x), (spaces.Dict({"x": box, "y": spaces.Discrete(2)}),
                                             lambda x: {"x": x, "y": np.zeros(len(x), np.int64)})):
        policy = ActorCritic(space, spaces.Discrete(2), normalize_observations=True)
        obs = wrap(np.random.default_rng(0).normal(1e8, 1, size=(50, 1)))
        policy.normalize.update_obs(policy.encoder.vector(obs), Comm())
        found.append(policy.features(obs)[:, 0])
    assert found[0].std() > 0.9
    np.testing.assert_allclose(found[1], found[0], atol=1e-6)


def test_a_picture_goes_through_the_convolution_and_the_rest_beside_it():
    space = spaces.Dict({"camera": PICTURE, "speed": spaces.Box(-1, 1, (2,)), "gear": spaces.Discrete(3)})
    policy = ActorCritic(space, spaces.Discrete(2), network="cnn", dtype=tf.float64, value_network="shared",
                         network_options={"convs": "4@4/2,5@3/2", "num_hidden": 7})
    assert policy.encoder.size == (20, 24, 3, 5)
    batch = stack(samples(space, 4))
    features = policy.features(batch)
    assert features.dtype == np.uint8 and features.shape == (4, 20 * 24 * 3 + 4 * 5)
    beside, hidden = policy.pi_net.layers[0], policy.pi_net.layers[1]
    picture = tf.constant(batch["camera"])
    for layer in beside.layers:
        picture = layer(picture)
    gear = np.eye(3)[batch["gear"]]
    joined = np.concatenate([picture, gear, batch["speed"]], axis=1)  # camera, gear, speed: sorted keys
    np.testing.assert_allclose(policy.pi_net(tf.constant(features)), np.maximum(hidden(tf.constant(joined)), 0),
                               atol=1e-6)
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(policy.value(tf.constant(features)))
    gradients = tape.gradient(value, policy.pi_net.trainable_variables)
    assert all(np.abs(g).max() > 0 for g in gradients)


def test_a_network_without_convolutions_sees_pictures_as_numbers():
    space = spaces.Dict({"camera": PICTURE, "speed": spaces.Box(-1, 1, (2,))})
    policy = ActorCritic(space, spaces.Discrete(2), network="mlp", normalize_observations=True)
    batch = stack(samples(space, 3))
    features = policy.features(batch)
    np.testing.assert_allclose(features[:, :-2], batch["camera"].reshape(3, -1) / 255, atol=1e-6)
    assert policy.encoder.normalized.sum() == 2


def test_bytes_enter_a_network_as_numbers_from_0_to_1():
    """From their bounds, whatever these are; and are normalised where numbers are."""
    ram = spaces.Box(0, 255, (128,), np.uint8)
    policy = ActorCritic(ram, spaces.Discrete(2))
    obs = np.random.default_rng(0).integers(0, 256, (3, 128), dtype=np.uint8)
    np.testing.assert_array_equal(policy.features(obs), obs * np.float32(1 / 255))
    low, high = np.array([[0, 2, 7]], np.uint8), np.array([[3, 6, 7]], np.uint8)
    space = spaces.Dict({"grid": spaces.Box(low, high, dtype=np.uint8), "speed": spaces.Box(-9, 9, (1,)),
                         "count": spaces.Box(0, 9, (1,), np.int64)})
    policy = ActorCritic(space, spaces.Discrete(2), normalize_observations=True)
    obs = {"grid": np.array([[[3, 3, 7]]], np.uint8), "speed": np.ones((1, 1)), "count": np.array([[9]])}
    np.testing.assert_array_equal(policy.encoder.vector(obs), [[9, 1, 0.25, 0, 1]])  # sorted keys
    assert policy.encoder.normalized.all()


@pytest.mark.parametrize(("space", "words"), [
    (spaces.Sequence(spaces.Discrete(2)), "supported are Box"),
    (spaces.Text(5), "supported are Box"),
    (spaces.Dict({"a": spaces.Dict({"b": spaces.Text(5)})}), "at a/b"),
    (spaces.Box(-1, 1, (0,)), "not supported"),
    (spaces.Dict({"left": PICTURE, "right": PICTURE}), "2 pictures \\(left, right\\)"),
])
def test_what_is_not_supported_is_refused_by_name(space, words):
    with pytest.raises(UserError, match=words):
        Encoder(space)


def test_convolutions_without_a_picture_are_refused():
    with pytest.raises(UserError, match="need pictures"):
        ActorCritic(spaces.Box(-1, 1, (4,)), spaces.Discrete(2), network="cnn_lstm")
    assert takes_pictures("my_module:net") and not takes_pictures("lnlstm")


def test_gymnasium_still_sorts_the_keys_of_a_plain_dict():
    assert list(gym.spaces.Dict({"b": spaces.Discrete(2), "a": spaces.Discrete(2)}).spaces) == ["a", "b"]


@pytest.mark.parametrize("space", [spaces.Dict({}), spaces.Tuple([]), spaces.Box(-1, 1, (0,)),
                                   spaces.Dict({"a": spaces.Box(-1, 1, (2, 0))})])
def test_empty_spaces_are_refused_as_empty(space):
    with pytest.raises(UserError, match=r"observation space .* is empty"):
        Encoder(space)
