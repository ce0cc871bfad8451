"""Adam against the algorithm as the paper writes it; variables as a vector."""

import numpy as np
import pytest
import tensorflow as tf

from baselines_lite.common.networks.flat import flatten, get_flat, set_flat, unflatten
from baselines_lite.common.optim.mpi_adam import MpiAdam
from baselines_lite.common.optim.mpi_rmsprop import MpiRmsProp
from baselines_lite.common.system.compiled import Compiled
from baselines_lite.common.system.mpi import Comm


def variables():
    return [tf.Variable([[1.0, -2.0], [3.0, 0.5]], dtype=tf.float64), tf.Variable([0.1, 0.2], dtype=tf.float64)]


@pytest.mark.parametrize("max_norm", [None, 0.5])
def test_ten_steps_against_a_plain_adam(max_norm):
    params, rng = variables(), np.random.default_rng(0)
    adam = MpiAdam(params, Comm(), epsilon=1e-5, max_grad_norm=max_norm)
    theta, m, v = get_flat(params), np.zeros(6), np.zeros(6)
    for t in range(1, 11):
        g = rng.normal(size=6)
        norm = adam.apply(unflatten(tf.constant(g), params), tf.constant(0.01, tf.float64))
        assert norm.numpy() == pytest.approx(np.linalg.norm(g))
        if max_norm is not None:
            g = g * min(1, max_norm / np.linalg.norm(g))
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        theta -= 0.01 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v) + 1e-5)
        np.testing.assert_allclose(get_flat(params), theta, rtol=1e-12)


def test_a_zero_gradient_is_clipped_without_nan():
    params = variables()
    before = get_flat(params)
    adam = MpiAdam(params, Comm(), max_grad_norm=0.5)
    adam.apply([tf.zeros_like(v) for v in params], tf.constant(0.1, tf.float64))
    np.testing.assert_array_equal(get_flat(params), before)


@pytest.mark.parametrize(("optimizer", "options"), [(MpiAdam, {}), (MpiRmsProp, {"epsilon": 1e-3})])
@pytest.mark.parametrize("xla", [False, True])
def test_a_step_is_a_step_on_each_variable(optimizer, options, xla):
    """Also with one learning rate for each, and the norm clipped over all together."""
    rng = np.random.default_rng(1)
    shapes = [(30, 30), (4,), (70,), (2, 2)]
    start, g = ([rng.normal(size=shape) for shape in shapes] for _ in range(2))
    rates, norm = (0.1, 0.2, 0.3, 0.4), np.sqrt(sum(np.square(x).sum() for x in g))
    whole = [tf.Variable(x) for x in start]
    together = optimizer(whole, Comm(), max_grad_norm=1.0, **options)
    Compiled(lambda g, lr: together.apply(g, tf.unstack(lr)), xla=xla)(
        [tf.constant(x) for x in g], tf.constant(rates, tf.float64))
    for variable, x, d, rate in zip(whole, start, g, rates):
        single = [tf.Variable(x)]
        optimizer(single, Comm(), **options).apply([tf.constant(d / norm)], tf.constant(rate, tf.float64))
        np.testing.assert_allclose(variable, single[0], rtol=1e-10)


def test_flat_round_trip():
    params = variables()
    vector = flatten(params)
    np.testing.assert_array_equal(vector, [1, -2, 3, 0.5, 0.1, 0.2])
    assert [p.shape for p in unflatten(vector, params)] == [(2, 2), (2,)]
    set_flat(params, np.arange(6.0))
    np.testing.assert_array_equal(params[0], [[0, 1], [2, 3]])
