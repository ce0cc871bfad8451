"""Networks from features to latents [B, k], as lists of layers. Fully connected ones also run in NumPy.

A builder is a function `(size, *, rng, dtype, name, **options) -> Sequential | Recurrent` registered under a name; its
own keywords become command-line flags. `size` is the length of the feature vectors; for pictures, (height, width,
channels); for a picture and a vector beside it, (height, width, channels, length). A network of one's own may also
return any tf.Module that maps features [B, ...] to [B, k] and has `out_size`; without `numpy()` it acts through a
compiled function. What it trains are Parameters, or tf.Variables, which cost each update a little more; they must be
where `weights` finds them, in tf.Modules, lists, tuples and dicts. A builder that takes `compute` (a dtype) offers
other arithmetic than that of its weights.
"""

from __future__ import annotations

import inspect
import itertools
import math
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from baselines_lite.common.networks.layers import Activation, Beside, Cast, Conv, Dense, Flatten, LayerNorm, Sequential
from baselines_lite.common.networks.options import (
    CnnLstmOptions,
    CnnOptions,
    CnnSmallOptions,
    ConvOnlyOptions,
    Convs,
    LstmOptions,
    Sizes,
)
from baselines_lite.common.networks.parameters import Snapshot, trainable, weights
from baselines_lite.common.networks.recurrent import Recurrent
from baselines_lite.common.system.errors import UserError, counted, unknown
from baselines_lite.common.system.tf_setup import imported

Builder = Callable[..., Any]
NETWORKS: dict[str, Builder] = {}


def register(name: str) -> Callable[[Builder], Builder]:
    """Decorator: makes a builder available as `--network=name`."""

    def add(builder: Builder) -> Builder:
        NETWORKS[name] = builder
        return builder

    return add


@register("mlp")
def mlp(size: int, *, rng: np.random.Generator, dtype: tf.DType = tf.float32, name: str = "mlp",
        num_layers: int = 2, num_hidden: int = 64, sizes: str | None = None, activation: str = "tanh",
        layer_norm: bool = False) -> Sequential:
    """Fully connected layers, orthogonal with gain sqrt 2, each with an optional LayerNorm before its activation.

    `sizes` ("400,300") are the layers' units; without it there are num_layers of num_hidden each.
    """
    layers: list[Any] = []
    for i, units in enumerate(Sizes(sizes).layers if sizes else itertools.repeat(num_hidden, num_layers)):
        layers.append(Dense(size, units, rng=rng, dtype=dtype, name=f"{name}/{i}"))
        if layer_norm:
            layers.append(LayerNorm(units, dtype=dtype, name=f"{name}/ln{i}"))
        layers.append(Activation(activation))
        size = units
    return Sequential(layers, size)


def dense_layers(sizes: Sequence[int], activation: str, *, rng: np.random.Generator, dtype: tf.DType, name: str
                 ) -> Sequential:
    """A head of several layers, from sizes[0] inputs to sizes[-1] outputs; all but the last layer are activated."""
    layers: list[Any] = []
    for i, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
        last = i == len(sizes) - 2
        layers.append(Dense(n_in, n_out, rng=rng, gain=1.0 if last else np.sqrt(2), dtype=dtype, name=f"{name}/{i}"))
        layers += [] if last else [Activation(activation)]
    return Sequential(layers, sizes[-1])


def convolutions(size: tuple[int, ...], convs: str, activation: str, padding: str, rng: np.random.Generator,
                 dtype: tf.DType, compute: tf.DType, name: str) -> tuple[list[Any], int]:
    """Layers from pictures `size` to flat features of the last convolution, and how many those are."""
    if not isinstance(size, tuple):
        raise UserError(f"convolutions need pictures (uint8, three-dimensional), not vectors of {size} numbers; use "
                        "--network=mlp")
    height, width, channels = size[:3]
    layers: list[Any] = [Cast(compute)]  # exact: bfloat16 holds 0..255
    for i, (filters, kernel, stride) in enumerate(Convs(convs).layers):
        layers += [Conv(channels, filters, kernel, stride, rng=rng, padding=padding, scale=1.0 if i else 1 / 255,
                        dtype=dtype, compute=compute, name=f"{name}/conv{i}"), Activation(activation)]
        cut = kernel - 1 if padding == "VALID" else 0
        height, width = (-((cut - n) // stride) for n in (height, width))
        channels = filters
        if min(height, width) < 1:
            raise UserError(f"the convolutions {convs} are too large for pictures of {size[0]}x{size[1]}")
    layers, flat = [*layers, Flatten()], height * width * channels
    return (layers, flat) if len(size) == 3 else ([Beside(layers, size, compute)], flat + size[3])


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


@register("lstm")
def lstm(size: int, *, rng: np.random.Generator, dtype: tf.DType = tf.float32, name: str = "lstm",
         nlstm: int = LstmOptions.nlstm, layer_norm: bool = LstmOptions.layer_norm) -> Recurrent:
    """An LSTM on the features themselves."""
    return Recurrent(None, size, nlstm, rng=rng, layer_norm=layer_norm, dtype=dtype, name=name)


@register("lnlstm")
def lnlstm(size: int, *, rng: np.random.Generator, dtype: tf.DType = tf.float32, name: str = "lstm",
           nlstm: int = LstmOptions.nlstm) -> Recurrent:
    """`lstm` with layer normalisation."""
    return lstm(size, rng=rng, dtype=dtype, name=name, nlstm=nlstm, layer_norm=True)


@register("cnn_lstm")
def cnn_lstm(size: tuple[int, ...], *, rng: np.random.Generator, dtype: tf.DType = tf.float32,
             compute: tf.DType | None = None, name: str = "cnn_lstm", convs: str = CnnLstmOptions.convs,
             num_hidden: int = CnnLstmOptions.num_hidden, activation: str = CnnLstmOptions.activation,
             nlstm: int = CnnLstmOptions.nlstm, layer_norm: bool = CnnLstmOptions.layer_norm) -> Recurrent:
    """`cnn`, then an LSTM."""
    trunk = cnn(size, rng=rng, dtype=dtype, compute=compute, name=name, convs=convs, num_hidden=num_hidden,
                activation=activation)
    return Recurrent(trunk, num_hidden, nlstm, rng=rng, layer_norm=layer_norm, dtype=dtype, name=name)


@register("cnn_lnlstm")
def cnn_lnlstm(size: tuple[int, ...], **build: Any) -> Recurrent:
    """`cnn_lstm` with layer normalisation."""
    return cnn_lstm(size, layer_norm=True, **build)


def takes_pictures(network: str) -> bool:
    """Whether a network wants a picture as such: all but the fully connected ones and plain LSTMs."""
    return network not in ("mlp", "lstm", "lnlstm")


def find(network: str) -> Builder:
    """The builder of a registered name, or of `module:function`. Raises UserError with the nearest names."""
    module, colon, function = network.partition(":")
    if colon:
        found = imported(module, f"the network {network!r}")
        if not callable(builder := getattr(found, function, None)):
            raise UserError(f"cannot import the network {network!r}: the module {module} has no function {function!r}")
        return builder
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


def build(network: str, size: int | tuple[int, ...], *, rng: np.random.Generator, dtype: tf.DType, compute: tf.DType,
          name: str, options: Mapping[str, Any]) -> Any:
    """The network of that name for features of `size`. Raises UserError where it does not fit them or `compute`."""
    builder = find(network)
    called = inspect.signature(builder)
    options = dict(options, rng=rng, dtype=dtype, name=name)
    if compute != dtype:
        if not any(p.name == "compute" or p.kind is p.VAR_KEYWORD for p in called.parameters.values()):
            raise UserError(f"dtype={compute.name} is for convolutional networks; the network {network} has no use for "
                            "it")
        options["compute"] = compute
    try:
        called.bind(size, **options)
    except TypeError as error:
        raise UserError(f"the network {network} is called with size, rng=, dtype=, name= and its options: {error}"
                        ) from None
    net = builder(size, **options)
    if not hasattr(net, "out_size"):
        raise UserError(f"the network {network} must give a module with out_size, the number of its outputs, not "
                        f"{net!r}")
    if getattr(builder, "__module__", None) != __name__:  # ours need no check
        check_found(network, net, size, dtype)
    return net


def check_found(network: str, net: Any, size: int | tuple[int, ...], dtype: tf.DType) -> None:
    """Raises UserError where a network computes with variables that are to be trained, but not found by `weights`.

    It runs once, after which layers that make their variables at their first call have them. Not by a @tf.function of
    its own: what that traces reads variables that `Parameters` is yet to replace.
    """
    shape = (size,) if isinstance(size, int) else size if len(size) == 3 else (math.prod(size[:3]) + 4 * size[3],)
    inputs = [tf.zeros((2, *shape), dtype if isinstance(size, int) else tf.uint8)]
    if hasattr(net, "state_size"):  # sequences of one step
        inputs = [inputs[0][:, None], tf.zeros((2, net.state_size), dtype), tf.zeros((2, 1), tf.bool)]
    counters = Snapshot([v for v in weights(net).values() if not v.trainable])
    counters.take()
    eagerly = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        with tf.GradientTape() as tape:
            net(*inputs)
    finally:
        tf.config.run_functions_eagerly(eagerly)
        counters.restore()
    found = set(map(id, trainable(net)))
    lost = [v.name for v in tape.watched_variables() if id(v) not in found]
    if lost:
        raise UserError(f"the network {network} computes with {counted(len(lost), 'variable')} that would not be "
                        f"trained ({lost[0]}): hold them as tf.Variables, or in this package's layers, in attributes "
                        "of a tf.Module or in lists, tuples and dicts there; Keras layers and other objects are no "
                        "such place")
