"""What the next update depends on, as plain data: numbers, text, None, arrays, and lists and dicts of these.

A `Stateful` object names the attributes that it consists of; `state` and `restore` do the rest. Plain data go into a
file that runs nothing when it is read.
"""

from __future__ import annotations

import itertools
import weakref
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Self

import numpy as np
import tensorflow as tf

PLAIN = bool | int | float | str | list | tuple | None

_births = itertools.count()
_alive: weakref.WeakValueDictionary[int, Stateful] = weakref.WeakValueDictionary()  # by birth


class Stateful:
    """An object that consists of the attributes named in STATE: others follow from them, or from its configuration.

    Such an attribute is plain data, a tf.Variable, a NumPy generator, another Stateful, or a list of these. What
    `state` gives may share memory with the object. BELONG: attributes with variables that somebody else keeps.
    """

    STATE: ClassVar[tuple[str, ...]] = ()
    BELONG: ClassVar[tuple[str, ...]] = ()

    def __new__(cls, *arguments: Any, **named: Any) -> Self:
        self = super().__new__(cls)
        self.__dict__["birth"] = next(_births)  # also of what is frozen
        _alive[self.birth] = self
        return self

    def state(self) -> dict[str, Any]:
        """The object as plain data."""
        return {name: state_of(getattr(self, name)) for name in self.STATE}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Makes the object what `state` told.

        Raises an exception for what cannot be its state; what it is then, nobody should use.
        """
        if set(state) != set(self.STATE):
            raise ValueError(f"{type(self).__name__} consists of {sorted(self.STATE)}, not of {sorted(state)}")
        for name in self.STATE:
            old = getattr(self, name)
            new = restored(old, state[name])
            if new is not old:
                setattr(self, name, new)


def state_of(value: Any) -> Any:
    """A value that a Stateful object may consist of, as plain data."""
    if hasattr(value, "state") and hasattr(value, "restore"):
        return value.state()
    if isinstance(value, tf.Variable):
        return np.asarray(value.numpy())  # of a scalar, numpy() gives no array
    if isinstance(value, np.random.Generator):
        return value.bit_generator.state
    if isinstance(value, np.generic):
        return np.asarray(value)
    if isinstance(value, list | tuple | deque):
        return [state_of(part) for part in value]
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):  # as JSON has them
        return {name: state_of(part) for name, part in value.items()}
    if value is None or isinstance(value, bool | int | float | str | np.ndarray):
        return value
    raise TypeError(f"a {type(value).__name__} is no plain data")


def restored(old: Any, new: Any) -> Any:
    """What a value becomes by the state of one like it, as `state_of` gave it: itself where it can change in place."""
    if hasattr(old, "state") and hasattr(old, "restore"):
        old.restore(new)
        return old
    if isinstance(old, tf.Variable | np.ndarray):
        dtype = np.dtype(getattr(old.dtype, "as_numpy_dtype", old.dtype))
        if not isinstance(new, np.ndarray) or new.shape != tuple(old.shape) or new.dtype != dtype:
            raise ValueError(f"{new!r} where an array {tuple(old.shape)} of {old.dtype} belongs"[:200])
        if isinstance(old, np.ndarray):
            return new.copy()
        old.assign(new)
        return old
    if isinstance(new, np.ndarray) and not new.ndim:
        new = new[()]  # a number of NumPy's, as it was
    if isinstance(old, Mapping) and isinstance(new, Mapping) and set(old) == set(new):
        return {name: restored(part, new[name]) for name, part in old.items()}
    if isinstance(old, np.random.Generator):
        old.bit_generator.state = new
        return old
    if isinstance(old, list | tuple | deque):
        live = any(not isinstance(part, PLAIN) for part in old)
        if not isinstance(new, list) or (live and len(new) != len(old)):
            raise ValueError(f"{new!r} where a list of {len(old)} belongs"[:200])
        parts = new if len(new) != len(old) else [restored(*pair) for pair in zip(old, new, strict=True)]
        if len(new) == len(old) and all(part is before for part, before in zip(parts, old, strict=True)):
            return old
        if isinstance(old, deque):
            return deque(parts, old.maxlen)
        return type(old)(*parts) if hasattr(old, "_fields") else type(old)(parts)
    number = int | float | np.generic  # a bool is one too, as in Python
    if isinstance(old, number | str) and not isinstance(new, str if isinstance(old, str) else number):
        raise ValueError(f"{new!r} where {old!r} was"[:200])
    return new


def not_finite(state: Any, path: str = "") -> str | None:
    """Where in a state there is a NaN, or an infinity in an array, as names and numbers joined by dots; None: nowhere.

    A number by itself may be infinite, as the best of none so far is.
    """
    if isinstance(state, Mapping | list):
        parts = state.items() if isinstance(state, Mapping) else enumerate(state)
        return next(filter(None, (not_finite(part, f"{path}.{name}") for name, part in parts)), None)
    if isinstance(state, np.ndarray) and state.ndim:
        wrong = np.issubdtype(state.dtype, np.inexact) and not np.isfinite(state).all()
    else:
        wrong = isinstance(state, float | np.ndarray) and state != state
    return path.lstrip(".") if wrong else None


def births() -> int:
    """A number below the `birth` of every Stateful object that is made from now on."""
    return next(_births)


def left_out(kept: Any, since: int, loop: Mapping[str, Any]) -> list[str]:
    """What has a state of which `kept` does not consist, by name.

    The types of Stateful objects made after `births` gave the number `since`, in their order: of those that consist of
    each other the outermost. The variables that BELONG to somebody else. And what has variables and generators among
    `loop`, the local variables of a training loop.
    """
    held, mine = set(map(id, parts_of(kept))), [thing for thing in _alive.values() if thing.birth > since]
    missing = [thing for thing in mine if id(thing) not in held]
    inner = {id(part) for thing in missing for name in thing.STATE for part in parts_of(getattr(thing, name))}
    outermost = sorted((thing for thing in missing if id(thing) not in inner), key=lambda thing: thing.birth)
    held |= inner
    others = [f"{type(thing).__name__}.{name}" for thing in mine for name in thing.BELONG
              if not held.issuperset(map(id, parts_of(getattr(thing, name))))]
    own = [name for name, value in loop.items() if not isinstance(value, Stateful)
           and any(id(part) not in held for part in parts_of(value) if not isinstance(part, Stateful))]
    return list(dict.fromkeys([*(type(thing).__name__ for thing in outermost), *others, *own]))


def parts_of(value: Any) -> Iterator[Stateful | tf.Variable | np.random.Generator]:
    """The objects with a state that a value is or consists of."""
    if isinstance(value, Stateful | tf.Variable | np.random.Generator):
        yield value
    if isinstance(value, Stateful):
        value = [getattr(value, name) for name in value.STATE]
    if isinstance(value, list | tuple | deque | Mapping):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from parts_of(part)
