"""Networks from features to latents [B, k], as lists of layers. Fully connected ones also run in NumPy.

A builder is a function `(size, *, rng, dtype, name, **options) -> Sequential` registered under a name; its own
keywords become command-line flags. `size` is the length of the feature vectors or, for pictures, (height, width,
channels). A network of one's own may also return any tf.Module that maps [B, d], or uint8 [B, height, width, channels],
to [B, k] and has `out_size`; without `numpy()` it acts through a compiled function. A builder that takes `compute` (a
dtype) offers other arithmetic than that of its weights.
"""

from __future__ import annotations

import importlib
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from baselines_lite.common.config import CnnOptions, CnnSmallOptions, ConvOnlyOptions, Convs
from baselines_lite.common.errors import UserError, unknown

NumpyFunction = Callable[[np.ndarray], np.ndarray]


def orthogonal(rng: np.random.Generator, shape: tuple[int, int], gain: float) -> np.ndarray:
    """A (semi-)orthogonal matrix times gain (Saxe et al. 2014): the factor of an SVD that has the right shape."""
    u, _, v = np.linalg.svd(rng.standard_normal(shape), full_matrices=False)
    return gain * (u if u.shape == shape else v)


def glorot_uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform in +-sqrt(6 / (fan in + fan out)) (Glorot and Bengio 2010); shape [..., n_in, n_out], as of a kernel."""
    limit = np.sqrt(6 / (np.prod(shape[:-2]) * (shape[-2] + shape[-1])))
    return rng.uniform(-limit, limit, shape)


class Dense(tf.Module):
    """x [B, n] -> x W + b [B, m], W orthogonal with the given gain, b = 0. x comes in the dtype `compute`."""

    def __init__(self, n_in: int, n_out: int, *, rng: np.random.Generator, gain: float = np.sqrt(2),
                 dtype: tf.DType = tf.float32, compute: tf.DType | None = None, name: str = "dense") -> None:
        super().__init__()
        self.w = tf.Variable(orthogonal(rng, (n_in, n_out), gain), dtype=dtype, name=f"{name}/w")
        self.b = tf.Variable(np.zeros(n_out), dtype=dtype, name=f"{name}/b")
        self.compute = compute or dtype

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return tf.matmul(x, tf.cast(self.w, self.compute)) + tf.cast(self.b, self.compute)

    def numpy(self) -> NumpyFunction:
        """The layer with a copy of its present weights, in NumPy."""
        w, b = self.w.numpy(), self.b.numpy()

        def forward(x: np.ndarray) -> np.ndarray:
            y = x.dot(w)
            y += b
            return y

        return forward


class Conv(tf.Module):
    """A convolution with bias: [B, height, width, n] -> [B, height', width', m], with square kernels and strides.

    Its kernel W [k, k, n, m] is orthogonal as a matrix [k k n, m] for VALID padding, Glorot uniform for SAME. The input
    is multiplied by `scale`, by way of the kernel, and comes in the dtype `compute`.
    """

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int, *, rng: np.random.Generator,
                 padding: str = "VALID", scale: float = 1.0, dtype: tf.DType = tf.float32,
                 compute: tf.DType | None = None, name: str = "conv") -> None:
        super().__init__()
        shape = (kernel, kernel, n_in, n_out)
        w = (orthogonal(rng, (kernel * kernel * n_in, n_out), np.sqrt(2)).reshape(shape) if padding == "VALID"
             else glorot_uniform(rng, shape))
        self.w = tf.Variable(w, dtype=dtype, name=f"{name}/w")
        self.b = tf.Variable(np.zeros(n_out), dtype=dtype, name=f"{name}/b")
        self.stride, self.padding, self.scale, self.compute = stride, padding, scale, compute or dtype

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        w = tf.cast(self.w * tf.cast(self.scale, self.w.dtype), self.compute)
        return tf.nn.bias_add(tf.nn.conv2d(x, w, self.stride, self.padding), tf.cast(self.b, self.compute))


class Cast:
    """x in another dtype."""

    def __init__(self, dtype: tf.DType) -> None:
        self._dtype = dtype

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return tf.cast(x, self._dtype)


class Flatten:
    """[B, ...] -> [B, k]."""

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return tf.reshape(x, [-1, int(np.prod(x.shape[1:]))])


class Pixels:
    """uint8 [B, ...] -> [B, k] in 0..1."""

    def __init__(self, dtype: tf.DType) -> None:
        self._dtype = dtype

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return tf.reshape(tf.cast(x, self._dtype) / 255, [-1, int(np.prod(x.shape[1:]))])

    def numpy(self) -> NumpyFunction:
        """The layer in NumPy."""
        return lambda x: (x / self._dtype.as_numpy_dtype(255)).reshape(len(x), -1)


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


def runs_in_numpy(net: Any) -> bool:
    """Whether `net.numpy()` can be asked for: the network and each of its layers have it."""
    return hasattr(net, "numpy") and all(hasattr(layer, "numpy") for layer in getattr(net, "layers", ()))


Builder = Callable[..., Any]
NETWORKS: dict[str, Builder] = {}


def register(name: str) -> Callable[[Builder], Builder]:
    """Decorator: makes a builder available as `--network=name`."""

    def add(builder: Builder) -> Builder:
        NETWORKS[name] = builder
        return builder

    return add


@register("mlp")
def mlp(size: int | tuple[int, ...], *, rng: np.random.Generator, dtype: tf.DType = tf.float32, name: str = "mlp",
        num_layers: int = 2, num_hidden: int = 64, activation: str = "tanh", layer_norm: bool = False) -> Sequential:
    """Fully connected layers, orthogonal with gain sqrt 2, each with an optional LayerNorm before its activation.

    A picture is flattened and divided by 255 first.
    """
    layers: list[Any] = []
    if isinstance(size, tuple):
        layers, size = [Pixels(dtype)], int(np.prod(size))
    for i in range(num_layers):
        layers.append(Dense(size, num_hidden, rng=rng, dtype=dtype, name=f"{name}/{i}"))
        if layer_norm:
            layers.append(LayerNorm(num_hidden, dtype=dtype, name=f"{name}/ln{i}"))
        layers.append(Activation(activation))
        size = num_hidden
    return Sequential(layers, size)


def convolutions(size: tuple[int, ...], convs: str, activation: str, padding: str, rng: np.random.Generator,
                 dtype: tf.DType, compute: tf.DType, name: str) -> tuple[list[Any], int]:
    """Layers from pictures `size` to flat features of the last convolution, and how many those are."""
    if not isinstance(size, tuple):
        raise UserError(f"convolutions need pictures (uint8, three-dimensional), not vectors of {size} numbers; use "
                        "--network=mlp")
    height, width, channels = size
    layers: list[Any] = [Cast(compute)]  # exact: bfloat16 holds 0..255
    for i, (filters, kernel, stride) in enumerate(Convs(convs).layers):
        layers += [Conv(channels, filters, kernel, stride, rng=rng, padding=padding, scale=1.0 if i else 1 / 255,
                        dtype=dtype, compute=compute, name=f"{name}/conv{i}"), Activation(activation)]
        cut = kernel - 1 if padding == "VALID" else 0
        height, width = (-((cut - n) // stride) for n in (height, width))
        channels = filters
        if min(height, width) < 1:
            raise UserError(f"the convolutions {convs} are too large for pictures of {size[0]}x{size[1]}")
    return [*layers, Flatten()], height * width * channels


@register("cnn")
def cnn(size: tuple[int, ...], *, rng: np.random.Generator, dtype: tf.DType = tf.float32,
        compute: tf.DType | None = None, name: str = "cnn", convs: str = CnnOptions.convs,
        num_hidden: int = CnnOptions.num_hidden, activation: str = CnnOptions.activation) -> Sequential:
    """The convolutions of Mnih et al. 2015 (Nature 518) and a fully connected layer; orthogonal with gain sqrt 2."""
    compute = compute or dtype
    layers, flat = convolutions(size, convs, activation, "VALID", rng, dtype, compute, name)
    hidden = Dense(flat, num_hidden, rng=rng, dtype=dtype, compute=compute, name=f"{name}/hidden")
    return Sequential([*layers, hidden, Activation(activation), Cast(dtype)], num_hidden)


@register("cnn_small")
def cnn_small(size: tuple[int, ...], *, rng: np.random.Generator, dtype: tf.DType = tf.float32,
              compute: tf.DType | None = None, name: str = "cnn", convs: str = CnnSmallOptions.convs,
              num_hidden: int = CnnSmallOptions.num_hidden, activation: str = CnnSmallOptions.activation
              ) -> Sequential:
    """`cnn` with fewer and smaller layers (OpenAI Baselines)."""
    return cnn(size, rng=rng, dtype=dtype, compute=compute, name=name, convs=convs, num_hidden=num_hidden,
               activation=activation)


@register("conv_only")
def conv_only(size: tuple[int, ...], *, rng: np.random.Generator, dtype: tf.DType = tf.float32,
              compute: tf.DType | None = None, name: str = "cnn", convs: str = ConvOnlyOptions.convs,
              activation: str = ConvOnlyOptions.activation) -> Sequential:
    """Convolutions alone, padded to keep the borders, Glorot uniform (OpenAI Baselines, for deepq)."""
    layers, flat = convolutions(size, convs, activation, "SAME", rng, dtype, compute or dtype, name)
    return Sequential([*layers, Cast(dtype)], flat)


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
    own = keywords.keys() - {"rng", "dtype", "compute", "name"}
    return {name: hints.get(name, type(keywords[name].default)) for name in own}


def build(network: str, shape: tuple[int, ...], *, rng: np.random.Generator, dtype: tf.DType, compute: tf.DType,
          name: str, options: Mapping[str, Any]) -> Any:
    """The network of that name for features of `shape`. Raises UserError where it does not fit them or `compute`."""
    builder = find(network)
    size = shape[0] if len(shape) == 1 else shape
    if compute == dtype:
        return builder(size, rng=rng, dtype=dtype, name=name, **options)
    if "compute" not in inspect.signature(builder).parameters:
        raise UserError(f"dtype={compute.name} is for convolutional networks; the network {network} has no use for it")
    return builder(size, rng=rng, dtype=dtype, compute=compute, name=name, **options)
