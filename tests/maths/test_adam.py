"""Adam on a flat vector against the algorithm as the paper writes it; flat vectors."""

import numpy as np
import pytest
import tensorflow as tf

from baselines_lite.common.errors import UserError
from baselines_lite.common.flat import at, flat_gradient, flatten, get_flat, set_flat, unflatten
from baselines_lite.common.mpi import Comm
from baselines_lite.common.mpi_adam import MpiAdam
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
        adam.assign(adam.step(adam.state(), tf.constant(g), tf.constant(0.01, tf.float64)))
        if max_norm is not None:
            g = g * min(1, max_norm / np.linalg.norm(g))
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        theta -= 0.01 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v) + 1e-5)
        np.testing.assert_allclose(get_flat(params), theta, rtol=1e-12)


def test_a_zero_gradient_is_clipped_without_nan():
    params = variables()
    before = get_flat(params)
    adam = MpiAdam(params, Comm(), max_grad_norm=0.5)
    adam.assign(adam.step(adam.state(), tf.zeros(6, tf.float64), tf.constant(0.1, tf.float64)))
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
