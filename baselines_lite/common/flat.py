"""Lists of tensors as one flat vector, in the list's order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf


def flatten(tensors: Sequence[tf.Tensor | tf.Variable]) -> tf.Tensor:
    """All elements as one vector [P]."""
    return tf.concat([tf.reshape(t, [-1]) for t in tensors], axis=0)


def unflatten(vector: tf.Tensor, like: Sequence[tf.Variable]) -> list[tf.Tensor]:
    """The vector [P] cut into tensors of the shapes of `like`."""
    parts = tf.split(vector, [int(np.prod(v.shape)) for v in like])
    return [tf.reshape(part, v.shape) for part, v in zip(parts, like, strict=True)]


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
