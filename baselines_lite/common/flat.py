"""Parameters as one flat vector theta, in the order of a list of variables."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from baselines_lite.common.compiled import Compiled
from baselines_lite.common.errors import UserError

Vectors = list[tf.Tensor]


def read(weights: tf.Variable | np.ndarray) -> np.ndarray:
    """The present values as an array that no later assignment touches. A sixth of what Variable.numpy() takes."""
    if isinstance(weights, tf.Variable):
        return tf.raw_ops.ReadVariableOp(resource=weights.handle, dtype=weights.dtype).numpy()
    return np.asarray(weights)


def flatten(tensors: Sequence[tf.Tensor | tf.Variable]) -> tf.Tensor:
    """All elements as one vector [P]."""
    return tf.concat([tf.reshape(t, [-1]) for t in tensors], axis=0)


def unflatten(vector: tf.Tensor | np.ndarray, like: Sequence[tf.Variable]) -> list[tf.Tensor | np.ndarray]:
    """The vector [P] cut into tensors of the shapes of `like`; a NumPy vector into views of it."""
    sizes = [int(np.prod(v.shape)) for v in like]
    if isinstance(vector, np.ndarray):
        return [part.reshape(tuple(v.shape)) for part, v in zip(np.split(vector, np.cumsum(sizes)[:-1]), like)]
    parts = tf.split(vector, sizes) if len(like) > 1 else [vector]
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


class Parts:
    """Variables as a few vectors: each large one alone, so that it is never copied; the small ones joined into one.

    Copying a large variable costs more than carrying another tensor along; of small ones it is the number that costs
    (20 us per variable and compiled call).
    """

    LARGE = 1 << 16  # elements

    def __init__(self, variables: Sequence[tf.Variable]) -> None:
        self.variables = list(variables)
        sizes = [int(np.prod(v.shape)) for v in self.variables]
        small = [i for i, size in enumerate(sizes) if size < self.LARGE]
        self._members = [[i] for i, size in enumerate(sizes) if size >= self.LARGE] + ([small] if small else [])
        self.sizes = [sum(sizes[i] for i in members) for members in self._members]
        self._cut = Compiled(lambda vector: unflatten(vector, [self.variables[i] for i in small]), xla=True)
        self._joined = Compiled(lambda *tensors: flatten(tensors), xla=True)

    def join(self, tensors: Sequence[tf.Tensor | tf.Variable]) -> list[tf.Tensor]:
        """Tensors of the variables' shapes, in their order, as vectors."""
        return [tf.reshape(tensors[members[0]], [-1]) if len(members) == 1 else flatten([tensors[i] for i in members])
                for members in self._members]

    def split(self, vectors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Vectors as tensors of the variables' shapes, in their order."""
        found: dict[int, tf.Tensor] = {}
        for vector, members in zip(vectors, self._members, strict=True):
            parts = unflatten(vector, [self.variables[i] for i in members])
            found |= dict(zip(members, parts, strict=True))
        return [found[i] for i in range(len(self.variables))]

    def read(self) -> Vectors:
        """The variables' values as vectors."""
        found = []
        for size, members in zip(self.sizes, self._members, strict=True):
            parts = [tf.raw_ops.ReadVariableOp(resource=v.handle, dtype=v.dtype)
                     for v in (self.variables[i] for i in members)]
            found.append(self._joined(*parts) if len(parts) > 1 else tf.raw_ops.Reshape(tensor=parts[0], shape=[size]))
        return found

    def write(self, vectors: Sequence[tf.Tensor]) -> None:
        """Assigns vectors to the variables. By raw operations: Variable.assign takes twice as long."""
        for vector, members in zip(vectors, self._members, strict=True):
            shape = self.variables[members[0]].shape
            parts = self._cut(vector) if len(members) > 1 else [tf.raw_ops.Reshape(tensor=vector, shape=shape)]
            for i, part in zip(members, parts, strict=True):
                tf.raw_ops.AssignVariableOp(resource=self.variables[i].handle, value=part)

    @contextlib.contextmanager
    def at(self, module: tf.Module, vectors: Sequence[tf.Tensor]) -> Iterator[None]:
        """Within the block, `module` computes with the vectors in place of the variables; as the function `at`."""
        with replaced(module, self.variables, self.split(vectors)):
            yield


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
