"""Compiled functions."""

import threading
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from baselines_lite.common.system.compiled import Compiled
from baselines_lite.common.system.mpi import keep_thread_state


class Pair(NamedTuple):
    """A structure for inputs and outputs."""

    a: tf.Tensor
    b: list


@pytest.mark.parametrize("xla", [False, True])
def test_nested_tensors_come_back_in_their_places(xla):
    scale = tf.Variable(2.0)

    def function(pair, named):
        return {"z": pair.a * scale, "a": [named["y"], Pair(named["x"] + 1, [pair.b[0]])]}, None

    run = Compiled(function, xla=xla)
    for value in (2.0, 5.0):  # the variable's present value
        scale.assign(value)
        found, nothing = run(Pair(tf.constant([1.0, 2.0]), [tf.constant(7)]),
                             {"x": tf.constant(3), "y": tf.constant([[4.0]])})
        assert nothing is None and set(found) == {"z", "a"}
        np.testing.assert_array_equal(found["z"], [value, 2 * value])
        y, pair = found["a"]
        assert isinstance(pair, Pair) and (y.numpy(), pair.a.numpy(), pair.b[0].numpy()) == ([[4.0]], 4, 7)


@pytest.mark.parametrize(("any_batch", "traces"), [(False, 4), (True, 2)])
def test_other_shapes_are_traced_once_each_or_together(any_batch, traces):
    count = 0

    def total(x):
        nonlocal count
        count += 1
        return tf.reduce_sum(x, axis=0)

    run = Compiled(total, xla=False, any_batch=any_batch)
    for rows in (1, 2, 3, 4, 3, 2, 1):
        np.testing.assert_array_equal(run(tf.ones([rows, 2])), [rows, rows])
    assert count == traces


@pytest.mark.parametrize("xla", [False, True])
def test_a_function_that_branches_on_tensors_has_to_ask_for_it(xla):
    def size(x):
        if x > 0:
            return x
        return -x

    with pytest.raises(TypeError, match=r"@tf\.function"):
        Compiled(size, xla=xla)(tf.constant(-3))
    asks = tf.function(size)
    run = Compiled(lambda x: asks(x) + 1, xla=xla)
    assert run(tf.constant(-3)).numpy() == 4 and run(tf.constant(3)).numpy() == 4


def test_run_eagerly_shows_a_debugger_the_values():
    seen = []

    def double(x):
        seen.append(x.numpy())
        return 2 * x

    run = Compiled(double, xla=True)
    tf.config.run_functions_eagerly(True)
    try:
        assert run(tf.constant(3)).numpy() == 6 and seen == [3]
    finally:
        tf.config.run_functions_eagerly(False)


@pytest.mark.parametrize("keep", [False, True])
def test_pythons_state_of_tensorflows_thread_stays(keep):
    """Making it anew at each call takes longer than the call, and leaks under MPICH."""
    local, seen = threading.local(), []

    def call():
        if keep:
            keep_thread_state()
        if threading.get_ident() != threading.main_thread().ident:
            seen.append(getattr(local, "calls", 0))  # what belongs to a thread goes with its state
            local.calls = seen[-1] + 1
        return np.float32(0)

    @tf.function
    def loop():
        return tf.while_loop(lambda i, _: i < 20, lambda i, _: (i + 1, tf.ensure_shape(
            tf.numpy_function(call, [], tf.float32), [])), (tf.constant(0), tf.constant(0.0)))

    loop()
    if not seen:
        pytest.skip("TensorFlow calls from the main thread here")
    assert (max(seen) > 0) == keep
