"""Convolutions and the networks made of them."""

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf
from scipy.signal import correlate

from baselines_lite.common.networks import builders
from baselines_lite.common.networks.flat import flat_gradient
from baselines_lite.common.networks.layers import Activation, Conv, Dense, Sequential, runs_in_numpy
from baselines_lite.common.networks.observations import Encoder
from baselines_lite.common.networks.options import Convs
from baselines_lite.common.policies.actor_critic import ActorCritic
from baselines_lite.common.system.errors import UserError

PICTURE = gym.spaces.Box(0, 255, (4, 84, 84), np.uint8)


def build(name, shape=(84, 84, 4), dtype=tf.float32, compute=None, **options):
    return builders.build(name, shape, rng=np.random.default_rng(0), dtype=dtype, compute=compute or dtype, name="net",
                          options=options)


def count(net):
    return sum(int(np.prod(v.shape)) for v in net.trainable_variables)


def test_sizes_of_the_published_networks():
    cnn, small, only = build("cnn"), build("cnn_small"), build("conv_only")
    assert (count(cnn), cnn.out_size) == (1_684_128, 512)
    assert small.out_size == 128 and small.trainable_variables[-1].shape == (1296, 128)  # 9 x 9 x 16
    assert only.out_size == 7744  # 11 x 11 x 64
    x = tf.zeros((2, 84, 84, 4), tf.uint8)
    for net in (cnn, small, only):
        assert net(x).shape == (2, net.out_size) and not runs_in_numpy(net)


def test_convolution_against_scipy():
    rng = np.random.default_rng(1)
    conv = Conv(3, 5, 4, 2, rng=rng, scale=0.5, dtype=tf.float64)
    conv.b.assign(rng.normal(size=5))
    x = rng.normal(size=(2, 11, 12, 3))
    w, b = conv.w.numpy(), conv.b.numpy()
    expected = np.stack([[correlate(picture, w[..., k], mode="valid")[::2, ::2, 0] * 0.5 + b[k] for k in range(5)]
                         for picture in x])
    np.testing.assert_allclose(conv(tf.constant(x)), expected.transpose(0, 2, 3, 1), atol=1e-12)


def test_kernels_are_orthogonal_or_glorot():
    kernel = build("cnn").layers[1].w.numpy().reshape(-1, 32)
    np.testing.assert_allclose(kernel.T @ kernel, 2 * np.eye(32), atol=1e-5)  # gain sqrt 2
    kernel = build("conv_only").layers[1].w.numpy()
    limit = np.sqrt(6 / (8 * 8 * (4 + 32)))
    assert 0.95 * limit < np.abs(kernel).max() <= limit and abs(kernel.std() / (limit / np.sqrt(3)) - 1) < 0.02


def test_pictures_are_scaled_to_one():
    net = build("cnn_small", dtype=tf.float64)
    x = np.random.default_rng(0).integers(0, 256, (2, 84, 84, 4), dtype=np.uint8)
    first = net.layers[1]
    plain = tf.nn.conv2d(x / 255, first.w, 4, "VALID")
    np.testing.assert_allclose(first(net.layers[0](tf.constant(x))), plain, atol=1e-12)


def test_keywords_change_the_layers():
    net = build("cnn_small", convs="6@5/3,7@3/1", num_hidden=9, activation="tanh")
    assert [v.shape.as_list() for v in net.trainable_variables] == [[6], [5, 5, 4, 6], [7], [3, 3, 6, 7], [9],
                                                                   [25 * 25 * 7, 9]]
    assert Convs("6@5/3, 7@3/1").layers == [(6, 5, 3), (7, 3, 1)]
    for text in ("", "6@5", "6x5/3", "6@5/0", "6@5/3,"):
        with pytest.raises(UserError, match="stack of convolutions"):
            Convs(text)


def test_channels_first_and_last_are_the_same_picture():
    first, last = (Encoder(gym.spaces.Box(0, 255, shape, np.uint8)) for shape in ((4, 84, 80), (84, 80, 4)))
    obs = np.random.default_rng(0).integers(0, 256, (3, 4, 84, 80), dtype=np.uint8)
    assert first.shape == last.shape == first.size == (84, 80, 4)
    out = np.empty((2, 3, 84, 80, 4), np.uint8)
    np.testing.assert_array_equal(first.features(obs, None, out[0]), obs.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(last.features(obs.transpose(0, 2, 3, 1), None, out[1]), out[0])


def test_an_mlp_takes_pictures_too():
    policy = ActorCritic(PICTURE, gym.spaces.Discrete(3), network="mlp")
    obs = np.random.default_rng(0).integers(0, 256, (3, 4, 84, 84), dtype=np.uint8)
    features = policy.features(obs)
    assert policy.prefers_xla
    np.testing.assert_allclose(features, obs.reshape(3, -1) / 255, atol=1e-7)


def test_a_network_with_convolutions_inside_another_runs_compiled():
    """Whether layers run in NumPy is asked of what they consist of, too."""
    def nested(size, *, rng, dtype, name):
        inner = builders.cnn_small(size, rng=rng, dtype=dtype, name=name)
        return Sequential([inner, Dense(inner.out_size, 4, rng=rng, dtype=dtype), Activation("relu")], 4)

    builders.register("nested")(nested)
    try:
        policy = ActorCritic(PICTURE, gym.spaces.Discrete(3), network="nested")
    finally:
        del builders.NETWORKS["nested"]
    assert not policy.prefers_xla and policy.predict(np.zeros(PICTURE.shape, np.uint8))[0] in range(3)
    assert runs_in_numpy(Sequential([Sequential([Dense(3, 2, rng=np.random.default_rng(0))], 2)], 2))


def gradients(compute, network, activation):
    policy = ActorCritic(PICTURE, gym.spaces.Discrete(6), network=network, value_network="shared", seed=1,
                         network_options={"activation": activation}, compute=compute)
    rng = np.random.default_rng(0)
    obs = tf.constant(rng.integers(0, 256, (64, 84, 84, 4), dtype=np.uint8))
    actions, weight = tf.constant(rng.integers(0, 6, 64)), tf.constant(rng.normal(size=64).astype(np.float32))
    with tf.GradientTape() as tape:
        pd, values = policy.evaluate(obs)
        loss = tf.reduce_mean(weight * pd.logp(actions)) + 0.5 * tf.reduce_mean(tf.square(values - weight))
    assert loss.dtype == values.dtype == pd.logits.dtype == tf.float32
    assert all(v.dtype == tf.float32 for v in policy.trainable_variables)
    return flat_gradient(tape, loss, policy.trainable_variables).numpy(), policy, obs


@pytest.mark.parametrize("network", ["cnn", "cnn_small", "conv_only"])
@pytest.mark.parametrize(("activation", "tolerance"), [("tanh", 0.02), ("relu", 0.1)])
def test_bfloat16_gradients_against_float32(network, activation, tolerance):
    """Within 2% in norm. With relu within 10%: rounding takes half a percent of the units over the kink, at random.

    bfloat16 has 8 bits of precision, 0.4% a rounding; measured: 0.8 to 0.9% with tanh, 4.5 to 7.0% with relu.
    """
    exact, policy, obs = gradients(tf.float32, network, activation)
    rounded, policy16, _ = gradients(tf.bfloat16, network, activation)
    assert rounded.dtype == np.float32
    assert 0 < np.linalg.norm(rounded - exact) < tolerance * np.linalg.norm(exact)
    np.testing.assert_allclose(policy16.value(obs), policy.value(obs), atol=0.02)
    features = obs.numpy()
    acted = policy16.actor()(features, None)
    values, logp = policy16.values_and_logp(features, acted.actions)
    np.testing.assert_allclose(acted.values, values, atol=1e-6)  # acting and updating round alike
    np.testing.assert_allclose(policy16.logp(acted.heads, acted.actions), logp, atol=1e-6)


@pytest.mark.parametrize("dtype", [tf.bfloat16, tf.float32])
def test_the_gradient_by_a_convolutions_bias_is_the_sum_of_all_positions(dtype):
    """Of 25,600 ones, a number that bfloat16 holds. Op by op: a graph may leave it to oneDNN, on some processors."""
    conv = Conv(1, 3, 1, 1, rng=np.random.default_rng(0), compute=dtype)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(tf.cast(conv(tf.zeros((64, 20, 20, 1), dtype)), tf.float32))
    np.testing.assert_array_equal(tape.gradient(total, conv.b.variable), 25_600)


def test_bfloat16_is_refused_where_it_has_no_use():
    with pytest.raises(UserError, match="bfloat16"):
        build("mlp", 3, compute=tf.bfloat16)
