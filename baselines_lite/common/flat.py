"""Parameters as one flat vector theta, in the order of a list of variables."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from baselines_lite.common.errors import UserError


def flatten(tensors: Sequence[tf.Tensor | tf.Variable]) -> tf.Tensor:
    """All elements as one vector [P]."""
    return tf.concat([tf.reshape(t, [-1]) for t in tensors], axis=0)


def unflatten(vector: tf.Tensor, like: Sequence[tf.Variable]) -> list[tf.Tensor]:
    """The vector [P] cut into tensors of the shapes of `like`."""
    parts = tf.split(vector, [int(np.prod(v.shape)) for v in like])
    return [tf.reshape(part, v.shape) for part, v in zip(parts, like, strict=True)]


@contextlib.contextmanager
def at(module: tf.Module, variables: Sequence[tf.Variable], theta: tf.Tensor) -> Iterator[None]:
    """Within the block, `module` computes with the parameters theta [P] in place of its `variables`.

    So a compiled function can take parameters as an input and differentiate by them, without touching variables (which
    cost a compiled call 20 us each). Every variable must be an attribute of `module` or of a submodule.
    """
    with replaced(module, variables, unflatten(theta, variables)):
        yield


@contextlib.contextmanager
def replaced(module: tf.Module, variables: Sequence[tf.Variable], tensors: Sequence[tf.Tensor]) -> Iterator[None]:
    """Within the block, `module` computes with `tensors` in place of its `variables`; as `at`."""
    parts = {id(v): tensor for v, tensor in zip(variables, tensors, strict=True)}
    swapped = [(owner, name, value) for owner in (module, *module.submodules)
               for name, value in list(vars(owner).items()) if id(value) in parts]
    if {id(value) for _, _, value in swapped} != parts.keys():
        raise UserError("each tf.Variable of a network must be an attribute of a tf.Module, not an element of a list")
    try:
        for owner, name, value in swapped:
            setattr(owner, name, parts[id(value)])
        yield
    finally:
        for owner, name, value in swapped:
            setattr(owner, name, value)


def flat_gradient(tape: tf.GradientTape, loss: tf.Tensor, variables: Sequence[tf.Variable]) -> tf.Tensor:
    """d loss / d variables as one vector [P]; zeros where the loss does not depend on a variable."""
    return flatten(tape.gradient(loss, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO))


def get_flat(variables: Sequence[tf.Variable]) -> np.ndarray:
    """The variables' values as one NumPy vector [P]."""
    return np.concatenate([v.numpy().ravel() for v in variables])


def set_flat(variables: Sequence[tf.Variable], vector: np.ndarray) -> None:
    """Assigns a vector [P] to the variables."""
    for variable, part in zip(variables, unflatten(tf.constant(vector), variables), strict=True):
        variable.assign(part)
