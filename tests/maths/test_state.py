"""What an object consists of, as plain data and back."""

import dataclasses
from collections import deque

import numpy as np
import pytest
import tensorflow as tf

from baselines_lite.common.optim.mpi_adam import MpiAdam
from baselines_lite.common.system.mpi import Comm
from baselines_lite.common.system.state import Stateful, births, left_out, not_finite, state_of


class Kept(Stateful):
    STATE = ("scalar", "vector", "rng", "parts", "name")

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.scalar, self.vector = tf.Variable(self.rng.normal()), tf.Variable(self.rng.normal(size=3))
        self.parts, self.name = [self.rng.normal(size=2), seed], f"of {seed}"


def test_what_it_tells_it_takes():
    """Without a file between too: rank 0 gives its state to the others."""
    one, other = Kept(1), Kept(2)
    variable = other.scalar
    other.restore(one.state())
    assert other.scalar is variable and other.scalar == one.scalar and other.name == "of 1" and other.parts[1] == 1
    np.testing.assert_array_equal(other.vector, one.vector)
    np.testing.assert_array_equal(other.parts[0], one.parts[0])
    assert other.rng.normal() == one.rng.normal()


@pytest.mark.parametrize("change", [{"scalar": np.zeros(1, np.float32)}, {"vector": np.zeros(3, np.float32)},
                                    {"vector": None}, {"parts": [np.zeros(2)]}, {"name": 1}, {"more": 1}])
def test_what_it_cannot_have_told_is_refused(change):
    kept = Kept(1)
    with pytest.raises(ValueError):
        kept.restore(kept.state() | change)


class Changes(Stateful):
    """Begins with plain numbers, which become others."""

    STATE = ("mean", "count", "recent", "pair")

    def __init__(self):
        self.mean, self.count, self.recent, self.pair = 0.0, 0, deque(maxlen=3), ()


def test_numbers_of_another_type_come_back_as_they_were():
    """A float that is NumPy's after the first mean, with which arithmetic goes on in NumPy's precision."""
    one, other = Changes(), Changes()
    one.mean, one.count, one.pair = np.float32(0.1), 2.5, (1, 2)
    one.recent.extend(range(5))
    other.restore(one.state())
    assert type(other.mean) is np.float32 and other.mean == one.mean and other.count == 2.5 and other.pair == (1, 2)
    assert other.recent == one.recent and other.recent.maxlen == 3
    for wrong in ({"mean": "much"}, {"count": [1]}, {"mean": None}):
        with pytest.raises(ValueError):
            Changes().restore(one.state() | wrong)


def test_keys_that_files_have_not_are_refused():
    with pytest.raises(TypeError, match="a dict is no plain data"):
        state_of({1: 2})


def test_a_number_may_be_infinite_an_array_not():
    assert not_finite({"best": -np.inf, "most": np.float64(np.inf), "none": None, "name": "x", "n": 3}) is None
    assert not_finite({"parts": [1.0, float("nan")]}) == "parts.1"
    assert not_finite({"moments": np.array([1.0, np.inf])}) == "moments"


def test_a_dataclass_may_be_stateful():
    @dataclasses.dataclass
    class Pair(Stateful):
        STATE = ("a",)
        a: int = 0

    @dataclasses.dataclass(frozen=True)
    class Frozen(Stateful):
        a: int = 0

    before, pair, frozen = births(), Pair(3), Frozen(4)
    assert left_out({}, before, {}) == ["Pair", "Frozen"] and pair.state() == {"a": 3} and frozen.birth > before


def test_who_steps_variables_that_nobody_keeps_is_named():
    """An optimizer of a second network, say, of which only the moments are kept."""
    before, variable = births(), tf.Variable([1.0])
    adam, rng = MpiAdam([variable], Comm()), np.random.default_rng(0)
    assert left_out({"adam": adam}, before, {}) == ["MpiAdam.variables"]
    assert left_out({"adam": adam, "net": [variable]}, before, {"mine": {"of": [variable]}, "n": 3}) == []
    assert left_out({"adam": adam, "net": [variable]}, before, {"rngs": [rng], "adam": adam}) == ["rngs"]
