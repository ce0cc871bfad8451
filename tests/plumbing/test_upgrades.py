"""What we use of TensorFlow and Gymnasium beside their public API: where a new release breaks it, this says what."""

import inspect

import gymnasium as gym
import pytest
import tensorflow as tf
from gymnasium.vector import AsyncVectorEnv, async_vector_env

from tests.bounds import bounds, requirements


def test_a_concrete_function_is_called_with_flat_tensors():
    """system/compiled.py calls `inference_fn.call_flat(*inputs, *captured_inputs)`: flat outputs, None for none."""
    variable = tf.Variable(2.0)
    concrete = tf.function(lambda x: {"a": x * variable, "b": (x, x + 1)}).get_concrete_function(tf.constant(1.0))
    assert hasattr(concrete, "inference_fn") and hasattr(concrete.inference_fn, "call_flat"), (
        "TensorFlow's ConcreteFunction has no inference_fn.call_flat any more: Compiled needs another way to call it")
    found = concrete.inference_fn.call_flat(tf.constant(3.0), *concrete.captured_inputs)
    assert [float(x) for x in found] == [6.0, 3.0, 4.0], "call_flat's outputs are not those of tf.nest.flatten any more"

    def assign(x):
        variable.assign(x)

    nothing = tf.function(assign).get_concrete_function(tf.constant(1.0))
    assert not nothing.inference_fn.call_flat(tf.constant(5.0), *nothing.captured_inputs) and float(variable) == 5.0, (
        "call_flat of a function without outputs gives something")


def test_gymnasiums_worker_is_as_ours_calls_it():
    """envs/workers.py runs Gymnasium's `_async_worker` and overrides methods of AsyncVectorEnv."""
    assert list(inspect.signature(async_vector_env._async_worker).parameters)[:6] == [
        "index", "env_fn", "pipe", "parent_pipe", "shared_memory", "error_queue"], (
        "Gymnasium's _async_worker takes other arguments: _worker must pass them on")
    for name, parameters in {"_check_spaces": ["self"], "_raise_if_errors": ["self", "successes"],
                             "close_extras": ["self", "timeout", "terminate"]}.items():
        method = getattr(AsyncVectorEnv, name, None)
        assert method is not None and list(inspect.signature(method).parameters) == parameters, (
            f"Gymnasium's AsyncVectorEnv.{name} has gone or takes other arguments: Workers overrides it")


def test_a_space_keeps_its_generator_where_env_state_looks():
    """envs/env_state.py keeps and sets `_np_random` of the spaces that an environment draws from."""
    space = gym.spaces.Dict({"a": gym.spaces.Discrete(2)})
    assert vars(space["a"])["_np_random"] is None, "Gymnasium's spaces have no _np_random, None before it is needed"
    space.seed(0)
    assert vars(space["a"])["_np_random"] is space["a"].np_random, (
        "a space draws from something other than _np_random")


def test_every_dependency_has_a_lower_and_an_upper_bound():
    """So that tests/bounds.py can try them: this one only reads them."""
    assert {"tensorflow", "numpy", "mpi4py", "mujoco", "pytest"} <= set(bounds(requirements()))
    for wrong in (["numpy"], ["numpy<3"], ["numpy>=2"], ["numpy==2"], ["numpy[x]>=1,<3", "numpy>=2,<3"]):
        with pytest.raises(ValueError, match="numpy"):
            bounds(wrong)
