"""Networks from feature vectors [B, d] to latents [B, k], as lists of layers with two backends: TensorFlow and NumPy.

A builder is a function `(size, *, rng, dtype, name, **options) -> Sequential` registered under a name; its own
keywords become command-line flags. A network of one's own may also return any tf.Module that maps [B, d] to [B, k] and
has `out_size`; without `numpy()` it acts through a compiled function.
"""

from __future__ import annotations

import importlib
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from baselines_lite.common.errors import UserError, unknown

NumpyFunction = Callable[[np.ndarray], np.ndarray]


def orthogonal(rng: np.random.Generator, shape: tuple[int, int], gain: float) -> np.ndarray:
    """A (semi-)orthogonal matrix times gain (Saxe et al. 2014): the factor of an SVD that has the right shape."""
    u, _, v = np.linalg.svd(rng.standard_normal(shape), full_matrices=False)
    return gain * (u if u.shape == shape else v)


class Dense(tf.Module):
    """x [B, n] -> x W + b [B, m], W orthogonal with the given gain, b = 0."""

    def __init__(self, n_in: int, n_out: int, *, rng: np.random.Generator, gain: float = np.sqrt(2),
                 dtype: tf.DType = tf.float32, name: str = "dense") -> None:
        super().__init__()
        self.w = tf.Variable(orthogonal(rng, (n_in, n_out), gain), dtype=dtype, name=f"{name}/w")
        self.b = tf.Variable(np.zeros(n_out), dtype=dtype, name=f"{name}/b")

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return tf.matmul(x, self.w) + self.b

    def numpy(self) -> NumpyFunction:
        """The layer with a copy of its present weights, in NumPy."""
        w, b = self.w.numpy(), self.b.numpy()

        def forward(x: np.ndarray) -> np.ndarray:
            y = x.dot(w)
            y += b
            return y

        return forward


class LayerNorm(tf.Module):
    """Zero mean and unit variance over the features, then gain and bias (Ba et al. 2016); eps 1e-5."""

    def __init__(self, size: int, *, dtype: tf.DType = tf.float32, name: str = "ln") -> None:
        super().__init__()
        self.gain = tf.Variable(np.ones(size), dtype=dtype, name=f"{name}/gain")
        self.bias = tf.Variable(np.zeros(size), dtype=dtype, name=f"{name}/bias")

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        centred = x - tf.reduce_mean(x, axis=-1, keepdims=True)
        var = tf.reduce_mean(tf.square(centred), axis=-1, keepdims=True)
        return centred * tf.math.rsqrt(var + 1e-5) * self.gain + self.bias

    def numpy(self) -> NumpyFunction:
        """The layer with a copy of its present weights, in NumPy."""
        gain, bias = self.gain.numpy(), self.bias.numpy()

        def forward(x: np.ndarray) -> np.ndarray:
            centred = x - x.mean(axis=-1, keepdims=True)
            return centred / np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + 1e-5) * gain + bias

        return forward


class Activation:
    """tanh, relu or elu, element by element."""

    FUNCTIONS: Mapping[str, tuple[Callable, NumpyFunction]] = {
        "tanh": (tf.tanh, lambda x: np.tanh(x, out=x)),
        "relu": (tf.nn.relu, lambda x: np.maximum(x, 0, out=x)),
        "elu": (tf.nn.elu, lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0)))),
    }

    def __init__(self, name: str) -> None:
        self._tf, self._numpy = self.FUNCTIONS[name]

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return self._tf(x)

    def numpy(self) -> NumpyFunction:
        """The function in NumPy; it may work in place, on the output of the layer before it."""
        return self._numpy


class Sequential(tf.Module):
    """Layers one after the other; `out_size` is the latent's width."""

    def __init__(self, layers: list[Any], out_size: int) -> None:
        super().__init__()
        self.layers, self.out_size = layers, out_size

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x

    def numpy(self) -> NumpyFunction:
        """The network with a copy of its present weights, in NumPy."""
        functions = [layer.numpy() for layer in self.layers]

        def forward(x: np.ndarray) -> np.ndarray:
            for function in functions:
                x = function(x)
            return x

        return forward


Builder = Callable[..., Any]
NETWORKS: dict[str, Builder] = {}


def register(name: str) -> Callable[[Builder], Builder]:
    """Decorator: makes a builder available as `--network=name`."""

    def add(builder: Builder) -> Builder:
        NETWORKS[name] = builder
        return builder

    return add


@register("mlp")
def mlp(size: int, *, rng: np.random.Generator, dtype: tf.DType = tf.float32, name: str = "mlp", num_layers: int = 2,
        num_hidden: int = 64, activation: str = "tanh", layer_norm: bool = False) -> Sequential:
    """Fully connected layers, orthogonal with gain sqrt 2, each with an optional LayerNorm before its activation."""
    layers: list[Any] = []
    for i in range(num_layers):
        layers.append(Dense(size, num_hidden, rng=rng, dtype=dtype, name=f"{name}/{i}"))
        if layer_norm:
            layers.append(LayerNorm(num_hidden, dtype=dtype, name=f"{name}/ln{i}"))
        layers.append(Activation(activation))
        size = num_hidden
    return Sequential(layers, size)


def find(network: str) -> Builder:
    """The builder of a registered name, or of `module:function`. Raises UserError with the nearest names."""
    module, colon, function = network.partition(":")
    if colon:
        try:
            return getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError) as error:
            raise UserError(f"cannot import the network {network!r}: {error}") from None
    if network not in NETWORKS:
        raise unknown("network", network, NETWORKS)
    return NETWORKS[network]


def options_of(network: str) -> dict[str, Any]:
    """The options that a builder takes as keywords, with their types."""
    builder = find(network)
    hints = typing.get_type_hints(builder)
    keywords = {p.name: p for p in inspect.signature(builder).parameters.values() if p.kind is p.KEYWORD_ONLY}
    own = keywords.keys() - {"rng", "dtype", "name"}
    return {name: hints.get(name, type(keywords[name].default)) for name in own}


def build(network: str, size: int, *, rng: np.random.Generator, dtype: tf.DType, name: str,
          options: Mapping[str, Any]) -> Any:
    """The network of that name for feature vectors of `size`."""
    return find(network)(size, rng=rng, dtype=dtype, name=name, **options)
