"""Adam against the algorithm as the paper writes it; parameters as vectors."""

import numpy as np
import pytest
import tensorflow as tf

from baselines_lite.common.errors import UserError
from baselines_lite.common.flat import Parts, at, flat_gradient, flatten, get_flat, set_flat, unflatten
from baselines_lite.common.mpi import Comm
from baselines_lite.common.mpi_adam import MpiAdam
from baselines_lite.common.mpi_rmsprop import MpiRmsProp
from baselines_lite.common.networks import Activation, Dense, Sequential


def variables():
    return [tf.Variable([[1.0, -2.0], [3.0, 0.5]], dtype=tf.float64), tf.Variable([0.1, 0.2], dtype=tf.float64)]


@pytest.mark.parametrize("max_norm", [None, 0.5])
def test_ten_steps_against_a_plain_adam(max_norm):
    params, rng = variables(), np.random.default_rng(0)
    adam = MpiAdam(params, Comm(), epsilon=1e-5, max_grad_norm=max_norm)
    theta, m, v = get_flat(params), np.zeros(6), np.zeros(6)
    for t in range(1, 11):
        g = rng.normal(size=6)
        adam.assign(adam.step(adam.state(), [tf.constant(g)], tf.constant(0.01, tf.float64)))
        if max_norm is not None:
            g = g * min(1, max_norm / np.linalg.norm(g))
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        theta -= 0.01 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v) + 1e-5)
        np.testing.assert_allclose(get_flat(params), theta, rtol=1e-12)


def test_a_zero_gradient_is_clipped_without_nan():
    params = variables()
    before = get_flat(params)
    adam = MpiAdam(params, Comm(), max_grad_norm=0.5)
    adam.assign(adam.step(adam.state(), [tf.zeros(6, tf.float64)], tf.constant(0.1, tf.float64)))
    np.testing.assert_array_equal(get_flat(params), before)


def test_parameters_as_an_input():
    """`at` computes with other parameters, differentiates by them, and puts the variables back."""
    layer = Dense(3, 2, rng=np.random.default_rng(0), dtype=tf.float64)
    module, x = Sequential([layer, Activation("tanh")], 2), tf.ones((4, 3), tf.float64)
    before, theta = get_flat(module.trainable_variables), tf.constant(np.linspace(-1, 1, 8))
    with tf.GradientTape() as tape:
        tape.watch(theta)
        with at(module, module.trainable_variables, theta):
            y = tf.reduce_sum(module(x))
    assert layer.w is module.trainable_variables[1]
    np.testing.assert_array_equal(get_flat(module.trainable_variables), before)
    set_flat(module.trainable_variables, theta.numpy())
    with tf.GradientTape() as other:
        expected = tf.reduce_sum(module(x))
    np.testing.assert_allclose(y, expected)
    np.testing.assert_allclose(tape.gradient(y, theta), flat_gradient(other, expected, module.trainable_variables))


def test_large_variables_stand_alone_and_small_ones_are_joined():
    rng = np.random.default_rng(0)
    layers = [Dense(n, m, rng=rng, dtype=tf.float64) for n, m in ((2, 3), (3, 30_000), (30_000, 1))]
    module = Sequential(layers, 1)
    parts = Parts(module.trainable_variables)
    assert sorted(parts.sizes) == [9 + 30_000 + 30_000 + 1, 90_000]
    vectors = parts.join(module.trainable_variables)
    for tensor, variable in zip(parts.split(vectors), module.trainable_variables, strict=True):
        np.testing.assert_array_equal(tensor, variable)
    w = layers[1].w
    with parts.at(module, [2 * vector for vector in vectors]):
        np.testing.assert_allclose(layers[1].w, 2 * w)
    assert layers[1].w is w


def test_a_step_on_parts_is_a_step_on_each_variable():
    """Also with one learning rate for each element, and the norm clipped over all parts together."""
    rng = np.random.default_rng(1)
    shapes = [(300, 300), (4,), (70_000,), (2, 2)]
    start, g = ([rng.normal(size=shape) for shape in shapes] for _ in range(2))
    for optimizer, options in ((MpiAdam, {}), (MpiRmsProp, {"epsilon": 1e-3})):
        whole = [tf.Variable(x) for x in start]
        together = optimizer(whole, Comm(), max_grad_norm=1.0, **options)
        rates = [tf.constant(rate, tf.float64) for rate in (0.1, 0.2, 0.3, 0.4)]
        elementwise = together.parts.join([tf.fill(v.shape, r) for v, r in zip(whole, rates)])
        together.assign(together.step(together.state(), together.parts.join([tf.constant(x) for x in g]), elementwise))
        norm = np.sqrt(sum(np.square(x).sum() for x in g))
        for variable, x, d, rate in zip(whole, start, g, rates):
            single = [tf.Variable(x)]
            alone = optimizer(single, Comm(), **options)
            alone.assign(alone.step(alone.state(), [tf.constant(d.ravel() / norm)], rate))
            np.testing.assert_allclose(variable, single[0], rtol=1e-10)


def test_a_variable_in_a_list_is_refused():
    module = tf.Module()
    module.weights = [tf.Variable(1.0)]
    with pytest.raises(UserError, match="attribute"), at(module, module.trainable_variables, tf.zeros(1)):
        pass


def test_flat_round_trip():
    params = variables()
    vector = flatten(params)
    np.testing.assert_array_equal(vector, [1, -2, 3, 0.5, 0.1, 0.2])
    assert [p.shape for p in unflatten(vector, params)] == [(2, 2), (2,)]
    set_flat(params, np.arange(6.0))
    np.testing.assert_array_equal(params[0], [[0, 1], [2, 3]])
