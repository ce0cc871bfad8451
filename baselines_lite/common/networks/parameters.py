"""Parameters: tensors that are trained. Each lies in a tf.Variable, small ones side by side in one.

A compiled call spends some microseconds on each variable that it reads or writes, and an optimizer several operations,
which is most of the time of a small update: so `Parameters` moves what a policy is made of into few variables, and a
layer's `w` becomes a part of one. The variables hold the only copy: what is assigned to a Parameter or to its variable
counts from then on, wherever it is read. A network of one's own may use tf.Variables instead; each stays as it is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import tensorflow as tf

from baselines_lite.common.networks.flat import flatten, read, unflatten

LARGE = 1 << 16  # elements of a parameter that gets a variable of its own: joined, it would be copied at each read


class Parameter(tf.Module):
    """A trained tensor. It goes where TensorFlow takes a tensor; `value()` is that tensor.

    `variable` is the tf.Variable in which it lies: gradients are taken by that one, whatever else lies there too.
    """

    trainable = True

    def __init__(self, value: np.ndarray, dtype: tf.DType = tf.float32, name: str = "parameter") -> None:
        super().__init__()
        self.label = name  # tf.Module's own name must be an identifier
        variable = tf.Variable(value, dtype=dtype, name=name)
        self.shape, self.dtype = variable.shape, dtype
        self.move(Place(variable, [self]))

    def value(self) -> tf.Tensor:
        """The present values, a tensor of this parameter's shape; differentiable by `variable`."""
        return self.place.value(self._index)

    def numpy(self) -> np.ndarray:
        """The present values, in an array of the caller's own; within Parameters.arrays_once not to be written to."""
        return self.place.numpy(self._index)

    def assign(self, value: Any) -> None:
        """Gives the parameter other values of the same shape."""
        self.place.assign(self._index, value)

    def assign_add(self, value: Any) -> None:
        """Adds to the parameter's values."""
        self.assign(self.value() + value)

    def move(self, place: Place, index: int = 0) -> None:
        """Makes this the parameter number `index` of a place."""
        self.place, self._index, self.variable = place, index, place.variable

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.numpy(), dtype)

    def __tf_tensor__(self, dtype: tf.DType | None = None, name: str | None = None) -> tf.Tensor:
        value = self.value()
        return value if dtype is None else tf.cast(value, dtype)


def _operator(name: str) -> Callable[..., tf.Tensor]:
    return lambda self, *others: getattr(self.value(), name)(*others)


for _name in ("add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "pow", "matmul", "neg", "getitem"):
    setattr(Parameter, f"__{_name}__", _operator(f"__{_name}__"))  # as of a tf.Variable


class Place:
    """A tf.Variable and the parameters in it: one of its shape, or several in a vector, one after the other."""

    def __init__(self, variable: tf.Variable, members: list[Parameter]) -> None:
        self.variable, self.members = variable, members
        self._ends = np.cumsum([p.shape.num_elements() for p in members])
        self.held: tuple[Any, list[tf.Tensor]] | None = None  # a graph and the values in it: see Parameters.given
        self.fresh: bool | None = None  # whether _arrays has the present values; None outside Parameters.arrays_once
        self._array = np.empty(0)
        self._arrays: list[np.ndarray] = []  # _array's parts

    def _part(self, index: int) -> slice | None:
        """Where in the vector a parameter lies; None: it is all of the variable."""
        if len(self.members) == 1:
            return None
        return slice(self._ends[index] - self.members[index].shape.num_elements(), self._ends[index])

    def value(self, index: int) -> tf.Tensor:
        """The values of a parameter."""
        if self.held is not None and self.held[0] is tf.compat.v1.get_default_graph():
            return self.held[1][index]
        part = self._part(index)
        if part is None:
            return tf.convert_to_tensor(self.variable)
        return tf.reshape(self.variable[part], self.members[index].shape)

    def numpy(self, index: int) -> np.ndarray:
        """The values of a parameter: a copy, since a variable whose buffer is in use elsewhere updates slowly."""
        if self.fresh is None:
            return self._cut(read(self.variable), index).copy()
        if not self.fresh:
            self._refresh()
        return self._arrays[index]

    def _refresh(self) -> None:
        if not self._arrays:
            self._array = np.empty(self.variable.shape, self.variable.dtype.as_numpy_dtype)
            self._arrays = [self._cut(self._array, i) for i in range(len(self.members))]
        np.copyto(self._array, read(self.variable))
        self.fresh = True

    def _cut(self, array: np.ndarray, index: int) -> np.ndarray:
        """A parameter's part of an array of the variable's shape, in the parameter's."""
        part = self._part(index)
        return array if part is None else array[part].reshape(self.members[index].shape)

    def assign(self, index: int, value: Any) -> None:
        """Other values for a parameter."""
        part = self._part(index)
        if part is None:
            self.variable.assign(value)
            return
        value = tf.convert_to_tensor(value, self.variable.dtype)
        value.shape.assert_is_compatible_with(self.members[index].shape)
        self.variable[part].assign(tf.reshape(value, [-1]))

    def split(self, vector: tf.Tensor) -> list[tf.Tensor]:
        """What each parameter has of a tensor of the variable's shape."""
        return [vector] if len(self.members) == 1 else unflatten(vector, self.members)


class Parameters:
    """The parameters of a few groups of modules, each group's small ones moved into one variable.

    groups: what is trained apart from the rest (the policy, the value) is a group of modules and Parameters. All of a
    module's are reachable by attributes, lists, tuples and dicts; see `weights`.
    """

    def __init__(self, *groups: Sequence[Any]) -> None:
        self._places: list[Place] = []
        seen: set[int] = set()
        for group in groups:
            found = [p for p in weights(group).values() if isinstance(p, Parameter) and id(p) not in seen]
            seen |= {id(p) for p in found}
            small = [p for p in found if p.shape.num_elements() < LARGE]
            if len(small) > 1:
                place = Place(tf.Variable(flatten(small), dtype=small[0].dtype, name="parameters"), small)
                for index, p in enumerate(small):
                    p.move(place, index)
            self._places += dict.fromkeys(p.place for p in found)

    def __iter__(self) -> Iterator[Parameter]:
        return iter([p for place in self._places for p in place.members])

    def split(self, tensors: Sequence[tf.Tensor], variables: Sequence[tf.Variable]
              ) -> dict[Parameter, tf.Tensor]:
        """Tensors of the shapes of `variables`, such as gradients by them, as each Parameter's part."""
        by_variable = {id(v): x for v, x in zip(variables, tensors, strict=True)}
        return {p: x for place in self._places if id(place.variable) in by_variable
                for p, x in zip(place.members, place.split(by_variable[id(place.variable)]), strict=True)}

    def mask(self, variables: Sequence[tf.Variable], chosen: Callable[[Parameter], bool]) -> np.ndarray:
        """Which elements of `variables`, as one vector [P], belong to a Parameter that is chosen, or to none."""
        members = {id(place.variable): place.members for place in self._places}
        return np.concatenate([np.full(p.shape.num_elements(), not isinstance(p, Parameter) or chosen(p))
                               for v in variables for p in members.get(id(v), [v])])

    @contextlib.contextmanager
    def read_once(self) -> Iterator[None]:
        """Within the block, in the graph where it begins, each variable is read and cut into its parameters once.

        Nothing may be assigned there. It saves reading a part for each use, which gradients make slow.
        """
        graph = tf.compat.v1.get_default_graph()
        mine = [place for place in self._places if place.held is None or place.held[0] is not graph]
        values = [place.split(tf.convert_to_tensor(place.variable)) for place in mine]
        with hold(graph, mine, values):
            yield

    @contextlib.contextmanager
    def arrays_once(self) -> Iterator[None]:
        """Within the block, `numpy` of the parameters reads each variable once. Nothing may be assigned there.

        The arrays are the same ones each time: the next block changes what they hold.
        """
        places = [place for place in self._places if place.fresh is None]  # none within another block
        for place in places:
            place.fresh = False
        try:
            yield
        finally:
            for place in places:
                place.fresh = None

    @contextlib.contextmanager
    def given(self, tensors: Sequence[tf.Tensor]) -> Iterator[None]:
        """Within the block, in the graph where it begins, the parameters have these values, in their order.

        For copies of the present ones only, in another dtype say: what a @tf.function of a network's own reads are the
        variables.
        """
        rest = iter(tensors)
        values = [[next(rest) for _ in place.members] for place in self._places]
        with hold(tf.compat.v1.get_default_graph(), self._places, values):
            yield


@contextlib.contextmanager
def hold(graph: Any, places: Sequence[Place], values: Sequence[list[tf.Tensor]]) -> Iterator[None]:
    """Within the block, in a graph, the parameters in `places` have these values."""
    before = [place.held for place in places]
    try:
        for place, held in zip(places, values, strict=True):
            place.held = (graph, held)
        yield
    finally:
        for place, held in zip(places, before, strict=True):
            place.held = held


def weights(module: Any) -> dict[str, Parameter | tf.Variable]:
    """What a module computes with, by the path of attributes that leads to each: `layers/0/w`.

    Also variables that are not trained. What other objects than modules, lists, tuples and dicts hold is not found, of
    which `builders.check_found` tells. Attributes come in alphabetical order, elements of lists and tuples by number,
    those of dicts by key, depth first. What several paths lead to has the first of them.
    """
    found: dict[str, Parameter | tf.Variable] = {}
    seen: set[int] = set()

    def walk(value: Any, path: tuple[str, ...]) -> None:
        if id(value) in seen:
            return
        seen.add(id(value))
        if isinstance(value, Parameter | tf.Variable):
            found["/".join(path)] = value
            return
        for name, part in parts(value):
            walk(part, (*path, name))

    walk(module, ())
    return found


def trainable(*modules: Any) -> list[tf.Variable]:
    """The variables in which lies what modules train, each once, in the order of `weights`."""
    found = [p.variable if isinstance(p, Parameter) else p for p in weights(modules).values() if p.trainable]
    return list({id(v): v for v in found}.values())


def parts(value: Any) -> list[tuple[str, Any]]:
    """What a module, list, tuple or dict consists of, by name; nothing for anything else."""
    if isinstance(value, dict):  # a key that is no name is quoted, so that no two are alike
        named = {key if isinstance(key, str) and key.isidentifier() else repr(key): part for key, part in value.items()}
        return sorted(named.items(), key=itemgetter(0))
    if isinstance(value, list | tuple):
        return [(str(i), part) for i, part in enumerate(value)]
    if isinstance(value, tf.Module):
        own = [(name, part) for name, part in vars(value).items() if not name.startswith("_self_")]  # TensorFlow's
        return sorted(own, key=itemgetter(0))
    return []


class Snapshot:
    """The values that variables had at the last `take`, in arrays of its own."""

    def __init__(self, variables: Sequence[tf.Variable]) -> None:
        self._variables = variables
        self._arrays = [np.empty(v.shape, v.dtype.as_numpy_dtype) for v in variables]

    def take(self) -> None:
        """Notes the present values."""
        for array, variable in zip(self._arrays, self._variables, strict=True):
            np.copyto(array, read(variable))

    def restore(self) -> None:
        """Gives the variables the values of the last `take`."""
        for array, variable in zip(self._arrays, self._variables, strict=True):
            variable.assign(array)
