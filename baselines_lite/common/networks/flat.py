"""Several variables as one flat vector theta [P], in their order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf


def read(variable: tf.Variable) -> np.ndarray:
    """The present values as an array that no later assignment touches. A sixth of what Variable.numpy() takes."""
    return np.asarray(tf.raw_ops.ReadVariableOp(resource=variable.handle, dtype=variable.dtype))


def flatten(tensors: Sequence[tf.Tensor | tf.Variable]) -> tf.Tensor:
    """All elements as one vector [P]."""
    return tf.concat([tf.reshape(t, [-1]) for t in tensors], axis=0)


def unflatten(vector: tf.Tensor, like: Sequence[Any]) -> list[tf.Tensor]:
    """The vector [P] cut into tensors of the shapes of `like`, which are tensors, variables or Parameters."""
    parts = tf.split(vector, [t.shape.num_elements() for t in like])
    return [tf.reshape(part, t.shape) for part, t in zip(parts, like, strict=True)]


def flat_gradient(tape: tf.GradientTape, loss: tf.Tensor, variables: Sequence[tf.Variable]) -> tf.Tensor:
    """d loss / d variables as one vector [P]; zeros where the loss does not depend on a variable."""
    return flatten(tape.gradient(loss, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO))


def get_flat(variables: Sequence[tf.Variable]) -> np.ndarray:
    """The variables' values as one NumPy vector [P]."""
    return np.concatenate([read(v).ravel() for v in variables])


def set_flat(variables: Sequence[tf.Variable], vector: np.ndarray) -> None:
    """Assigns a vector [P] to the variables."""
    for variable, part in zip(variables, unflatten(tf.constant(vector), variables), strict=True):
        variable.assign(part)
