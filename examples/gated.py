"""A network of one's own: layers whose outputs are gated by their inputs.

    python run.py --env=CartPole-v1 --network=examples.gated:gated --width=32 --num_timesteps=1e5
"""

from __future__ import annotations

import itertools

import numpy as np
import tensorflow as tf

from baselines_lite.common.networks.layers import Dense


class Gated(tf.Module):
    """y = tanh(W x + b) * sigmoid(V x + c), `depth` times. Its Dense layers are found by their attributes' names."""

    def __init__(self, size: int, width: int, depth: int, rng: np.random.Generator, dtype: tf.DType, name: str) -> None:
        super().__init__()
        sizes = [size, *[width] * depth]
        pairs = list(itertools.pairwise(sizes))
        self.values = [Dense(n, m, rng=rng, dtype=dtype, name=f"{name}/value{i}") for i, (n, m) in enumerate(pairs)]
        self.gates = [Dense(n, m, rng=rng, dtype=dtype, name=f"{name}/gate{i}") for i, (n, m) in enumerate(pairs)]
        self.out_size = width

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        for value, gate in zip(self.values, self.gates, strict=True):
            x = tf.tanh(value(x)) * tf.sigmoid(gate(x))
        return x


def gated(size: int, *, rng: np.random.Generator, dtype: tf.DType = tf.float32, name: str = "gated", width: int = 64,
          depth: int = 1) -> Gated:
    """What --network names: features [B, size] to [B, width]. `width` and `depth` are flags."""
    return Gated(size, width, depth, rng, dtype, name)
