"""What an object consists of, as plain data and back."""

import numpy as np
import pytest
import tensorflow as tf

from baselines_lite.common.system.state import Stateful


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
