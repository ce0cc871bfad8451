"""What we use of TensorFlow and Gymnasium beside their public API: where a new release breaks it, this says what."""

import inspect

import tensorflow as tf
from gymnasium.vector import AsyncVectorEnv, async_vector_env


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
    assert list(inspect.signature(async_vector_env._async_worker).parameters) == [
        "index", "env_fn", "pipe", "parent_pipe", "shared_memory", "error_queue", "autoreset_mode", "semaphore"], (
        "Gymnasium's _async_worker takes other arguments: _worker must pass them on")
    for name, parameters in {"_check_spaces": ["self"], "_raise_if_errors": ["self", "successes"],
                             "close_extras": ["self", "timeout", "terminate"]}.items():
        method = getattr(AsyncVectorEnv, name, None)
        assert method is not None and list(inspect.signature(method).parameters) == parameters, (
            f"Gymnasium's AsyncVectorEnv.{name} has gone or takes other arguments: Workers overrides it")
