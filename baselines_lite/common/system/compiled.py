"""Calling compiled functions at little cost: the boundary that is crossed at every step and every update."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from baselines_lite.common.system.watchdog import paused


def graph(function: Callable[..., Any], *, xla: bool, any_batch: bool = False) -> Any:
    """A tf.function that branches and loops on tensors by tf.cond and tf.while_loop only; compiled by XLA if `xla`.

    AutoGraph would let Python's own `if` and `for` do that, and takes seconds to rewrite all that is called. A function
    of one's own that needs it (a network, say) puts @tf.function on itself. `any_batch` lets one trace serve all batch
    sizes.
    """
    return tf.function(function, jit_compile=xla, reduce_retracing=any_batch, autograph=False)


class Compiled:
    """A `graph` from nested tensors to nested tensors, without what tf.function spends on each call.

    tf.function binds arguments and compares their types: 200 us, more than many of our functions take. This looks up
    what was traced for the shapes of the inputs and runs it: 30 us with XLA, and 10 to 20 for each variable that it
    reads or writes. Inputs are tensors in lists, tuples and dicts, of one structure and the same dtypes at each call;
    None and Python numbers are no inputs. A GradientTape outside does not see what happens inside.
    """

    def __init__(self, function: Callable[..., Any], *, xla: bool, any_batch: bool = False) -> None:
        self._function = graph(function, xla=xla, any_batch=any_batch)
        self._traced: dict[tuple[tf.TensorShape, ...], tuple[Callable[..., Any], list[tf.Tensor], Any]] = {}

    def __call__(self, *inputs: Any) -> Any:
        """The function of the inputs."""
        if tf.config.functions_run_eagerly():  # so that a debugger or a print sees inside
            return self._function(*inputs)
        leaves = tf.nest.flatten(inputs)
        shapes = tuple([leaf.shape for leaf in leaves])
        if shapes not in self._traced:
            with paused():  # XLA compiles in the first run
                self._traced[shapes] = self._trace(inputs)
                return self(*inputs)
        run, captured, structure = self._traced[shapes]
        return packed(structure, iter(run(*leaves, *captured) or ()))

    def _trace(self, inputs: tuple) -> tuple[Callable[..., Any], list[tf.Tensor], Any]:
        concrete = self._function.get_concrete_function(*inputs)
        return concrete.inference_fn.call_flat, concrete.captured_inputs, concrete.structured_outputs


def packed(structure: Any, leaves: Iterator[Any]) -> Any:
    """Leaves in the order of tf.nest.flatten, put into the places that the leaves of a structure have."""
    if structure is None:
        return None
    if isinstance(structure, dict):
        return {key: packed(structure[key], leaves) for key in sorted(structure)}
    if isinstance(structure, tuple | list):
        parts = [packed(part, leaves) for part in structure]
        return type(structure)(*parts) if hasattr(structure, "_fields") else type(structure)(parts)
    return next(leaves)
