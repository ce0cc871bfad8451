"""Networks from features to latents [B, k], as lists of layers. Fully connected ones also run in NumPy.

A builder is a function `(size, *, rng, dtype, name, **options) -> Sequential | Recurrent` registered under a name; its
own keywords become command-line flags. `size` is the length of the feature vectors; for pictures, (height, width,
channels); for a picture and a vector beside it, (height, width, channels, length). A network of one's own may also
return any tf.Module that maps features [B, ...] to [B, k] and has `out_size`; without `numpy()` it acts through a
compiled function. What it trains are Parameters, or tf.Variables, which cost each update a little more. A builder that
takes `compute` (a dtype) offers other arithmetic than that of its weights.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import itertools
import math
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from baselines_lite.common.config import (
    CnnLstmOptions,
    CnnOptions,
    CnnSmallOptions,
    ConvOnlyOptions,
    Convs,
    LstmOptions,
    Sizes,
)
from baselines_lite.common.errors import UserError, unknown
from baselines_lite.common.parameters import Parameter

NumpyFunction = Callable[[np.ndarray], np.ndarray]


class Blank(np.random.Generator):
    """In place of a generator of initial weights, where a file brings the weights: layers take blank tensors of it.

    A file with tensors of the given `sizes` can ask for no more numbers, and for no more layers, than its tensors could
    fill, whatever its settings say; a few million are for a policy that replaces layers after it has made them.
    """

    SPARE = 1 << 21

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__(np.random.PCG64(0))
        self._numbers, self._layers = sum(sizes) + self.SPARE, len(sizes)

    def weights(self, shape: tuple[int, ...]) -> tf.Tensor:
        """A float32 tensor with any content, whose memory is not touched. Raises UserError where it is too large."""
        self._numbers -= math.prod(shape)
        self._layers -= 1
        if self._numbers < 0 or self._layers < 0:
            raise UserError("its settings are those of a larger network than it has weights for")
        return tf.raw_ops.Empty(shape=shape, dtype=tf.float32)


def orthogonal(rng: np.random.Generator, shape: tuple[int, int], gain: float) -> np.ndarray:
    """A (semi-)orthogonal matrix times gain (Saxe et al. 2014): the factor of an SVD that has the right shape."""
    if isinstance(rng, Blank):
        return rng.weights(shape)
    u, _, v = np.linalg.svd(rng.standard_normal(shape), full_matrices=False)
    return gain * (u if u.shape == shape else v)


def glorot_uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform in +-sqrt(6 / (fan in + fan out)) (Glorot and Bengio 2010); shape [..., n_in, n_out], as of a kernel."""
    if isinstance(rng, Blank):
        return rng.weights(shape)
    limit = np.sqrt(6 / (np.prod(shape[:-2]) * (shape[-2] + shape[-1])))
    return rng.uniform(-limit, limit, shape)


class Recording(NamedTuple):
    """What `recording` notes of the layers that run, and the tape and the graph that it is for."""

    layers: list[tuple[Any, tf.Tensor, tf.Tensor]]
    tape: tf.GradientTape
    graph: Any


_recording: Recording | None = None


@contextlib.contextmanager
def recording(tape: tf.GradientTape) -> Iterator[list[tuple[Any, tf.Tensor, tf.Tensor]]]:
    """Within the block, every Dense and Conv that runs is noted as (layer, input, pre-activation), for KFAC.

    The tape watches the pre-activations, so that gradients by them can be taken; which is impossible, a UserError,
    inside a @tf.function of a network's own.
    """
    global _recording
    _recording = Recording([], tape, tf.compat.v1.get_default_graph())
    try:
        yield _recording.layers
    finally:
        _recording = None


def _noted(layer: Any, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    if _recording is not None:
        if tf.compat.v1.get_default_graph() is not _recording.graph:
            raise UserError("KFAC does not support the network: it runs a layer inside a @tf.function or a loop of its "
                            "own; remove that, or use a2c")
        _recording.tape.watch(y)
        _recording.layers.append((layer, x, y))
    return y


class Dense(tf.Module):
    """x [B, n] -> x W + b [B, m], W orthogonal with the given gain, b = 0. x comes in the dtype `compute`."""

    def __init__(self, n_in: int, n_out: int, *, rng: np.random.Generator, gain: float = np.sqrt(2),
                 dtype: tf.DType = tf.float32, compute: tf.DType | None = None, name: str = "dense") -> None:
        super().__init__()
        self.w = Parameter(orthogonal(rng, (n_in, n_out), gain), dtype, f"{name}/w")
        self.b = Parameter(np.zeros(n_out), dtype, f"{name}/b")
        self.compute = compute or dtype

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        w, b = (tf.cast(parameter.value(), self.compute) for parameter in (self.w, self.b))
        return _noted(self, x, tf.matmul(x, w) + b)

    def numpy(self) -> NumpyFunction:
        """The layer with its present weights, in NumPy."""
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
        w = (np.reshape(orthogonal(rng, (kernel * kernel * n_in, n_out), np.sqrt(2)), shape) if padding == "VALID"
             else glorot_uniform(rng, shape))
        self.w = Parameter(w, dtype, f"{name}/w")
        self.b = Parameter(np.zeros(n_out), dtype, f"{name}/b")
        self.stride, self.padding, self.scale, self.compute = stride, padding, scale, compute or dtype

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        w = self.w.value()
        w = tf.cast(w * tf.constant(self.scale, w.dtype), self.compute)
        y = tf.nn.bias_add(tf.nn.conv2d(x, w, self.stride, self.padding), tf.cast(self.b.value(), self.compute))
        return _noted(self, x, y)


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


class Beside(tf.Module):
    """Features of pictures with a vector beside them, packed as observations.Encoder packs them: uint8 [B, k].

    The picture goes through `layers`; their output [B, m] and the vector [B, d] become one [B, m + d].
    """

    def __init__(self, layers: list[Any], size: tuple[int, int, int, int], compute: tf.DType) -> None:
        super().__init__()
        self.layers, self._picture, self._length, self._compute = layers, size[:3], size[3], compute

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        pixels = int(np.prod(self._picture))
        vector = tf.bitcast(tf.reshape(x[:, pixels:], [-1, self._length, 4]), tf.float32)
        picture = tf.reshape(x[:, :pixels], [-1, *self._picture])
        for layer in self.layers:
            picture = layer(picture)
        return tf.concat([picture, tf.cast(vector, self._compute)], axis=1)


class LayerNorm(tf.Module):
    """Zero mean and unit variance over the features, then gain and bias (Ba et al. 2016); eps 1e-5."""

    def __init__(self, size: int, *, dtype: tf.DType = tf.float32, name: str = "ln") -> None:
        super().__init__()
        self.gain = Parameter(np.ones(size), dtype, f"{name}/gain")
        self.bias = Parameter(np.zeros(size), dtype, f"{name}/bias")

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return self.function()(x)

    def function(self) -> Callable[[tf.Tensor], tf.Tensor]:
        """The layer with its parameters read: before a loop, not at each of its steps."""
        gain, bias = self.gain.value(), self.bias.value()

        def forward(x: tf.Tensor) -> tf.Tensor:
            centred = x - tf.reduce_mean(x, axis=-1, keepdims=True)
            var = tf.reduce_mean(tf.square(centred), axis=-1, keepdims=True)
            return centred * tf.math.rsqrt(var + 1e-5) * gain + bias

        return forward

    def numpy(self) -> NumpyFunction:
        """The layer with its present weights, in NumPy."""
        gain, bias = self.gain.numpy(), self.bias.numpy()

        def forward(x: np.ndarray) -> np.ndarray:
            centred = x - x.mean(axis=-1, keepdims=True)
            return centred / np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + 1e-5) * gain + bias

        return forward


class Activation:
    """tanh, relu or elu, element by element."""

    FUNCTIONS: Mapping[str, tuple[Callable, Callable]] = {  # in NumPy to `out`, or to a new array if that is None
        "tanh": (tf.tanh, np.tanh),
        "relu": (tf.nn.relu, lambda x, out: np.maximum(x, 0, out=out)),
        "elu": (tf.nn.elu, lambda x, out: np.where(x > 0, x, np.expm1(np.minimum(x, 0)))),
    }

    def __init__(self, name: str) -> None:
        self._tf, self._numpy = self.FUNCTIONS[name]

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return self._tf(x)

    def numpy(self, in_place: bool = False) -> NumpyFunction:
        """The function in NumPy; `in_place`, it may write into its input, which is then the layer before's to give."""
        function = self._numpy
        return (lambda x: function(x, out=x)) if in_place else (lambda x: function(x, out=None))


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
        """The network with its present weights, in NumPy. Its input stays as it is."""
        functions, own = [], False  # whether what the layers so far give is an array of their own
        for layer in self.layers:
            functions.append(layer.numpy(in_place=own) if isinstance(layer, Activation) else layer.numpy())
            own = isinstance(layer, Dense | LayerNorm | Activation)

        def forward(x: np.ndarray) -> np.ndarray:
            for function in functions:
                x = function(x)
            return x

        return forward


class Lstm(tf.Module):
    """Long short-term memory (Hochreiter and Schmidhuber 1997) with forget gates, as OpenAI Baselines computes it.

    z = x Wx + h Wh + b, cut into input, forget, output gate and candidate i, f, o, u; c' = sigmoid(f) c + sigmoid(i)
    tanh(u); h' = sigmoid(o) tanh(c'). With layer_norm: LN(x Wx) + LN(h Wh) + b, and tanh(LN(c')) (Ba et al. 2016).
    Wx, Wh are orthogonal, b = 0. The state [B, 2 n] is c and h side by side.
    """

    def __init__(self, n_in: int, n: int, *, rng: np.random.Generator, layer_norm: bool = False,
                 dtype: tf.DType = tf.float32, name: str = "lstm") -> None:
        super().__init__()
        self.wx = Parameter(orthogonal(rng, (n_in, 4 * n), 1.0), dtype, f"{name}/wx")
        self.wh = Parameter(orthogonal(rng, (n, 4 * n), 1.0), dtype, f"{name}/wh")
        self.b = Parameter(np.zeros(4 * n), dtype, f"{name}/b")
        self.norm_x, self.norm_h, self.norm_c = (
            LayerNorm(size, dtype=dtype, name=f"{name}/ln_{part}") if layer_norm else None
            for part, size in (("x", 4 * n), ("h", 4 * n), ("c", n)))

    def inputs(self, x: tf.Tensor) -> tf.Tensor:
        """What the inputs [B, n_in] of all steps add to z [B, 4 n]: one product, outside the loop over time."""
        z = tf.matmul(x, self.wx.value())
        return (z if self.norm_x is None else self.norm_x(z)) + self.b.value()

    def step(self) -> Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
        """One step, (inputs, state) -> (h [B, n], the state after it), with its parameters read before the loop."""
        wh = self.wh.value()
        norm_h, norm_c = (norm.function() if norm else lambda x: x for norm in (self.norm_h, self.norm_c))

        def forward(inputs: tf.Tensor, state: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            c, h = tf.split(state, 2, axis=-1)
            i, f, o, u = tf.split(inputs + norm_h(tf.matmul(h, wh)), 4, axis=-1)
            c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(u)
            h = tf.sigmoid(o) * tf.tanh(norm_c(c))
            return h, tf.concat([c, h], axis=-1)

        return forward


class Recurrent(tf.Module):
    """A network with memory: `trunk` (or nothing) at each step, then an LSTM along time."""

    def __init__(self, trunk: Sequential | None, n_in: int, nlstm: int, *, rng: np.random.Generator, layer_norm: bool,
                 dtype: tf.DType, name: str) -> None:
        super().__init__()
        self.trunk = trunk
        self.lstm = Lstm(n_in, nlstm, rng=rng, layer_norm=layer_norm, dtype=dtype, name=f"{name}/lstm")
        self.out_size, self.state_size = nlstm, 2 * nlstm
        self.xla = trunk is None

    def __call__(self, x: tf.Tensor, state: tf.Tensor, firsts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Features [B, L, ...] of L steps -> (latents [B, L, k], the state [B, S] after them).

        `state` [B, S] is that before the first step; where `firsts` [B, L] is true an episode begins and the state is
        zeroed before the step.
        """
        L = x.shape[1]
        flat = tf.reshape(x, [-1, *x.shape[2:]])
        inputs = self.lstm.inputs(flat if self.trunk is None else self.trunk(flat))
        inputs = tf.transpose(tf.reshape(inputs, [-1, L, inputs.shape[-1]]), [1, 0, 2])
        keep = tf.transpose(1.0 - tf.cast(firsts, state.dtype))[:, :, None]
        one_step = self.lstm.step()
        if L == 1:
            h, state = one_step(inputs[0], state * keep[0])
            return h[:, None], state
        latents = tf.TensorArray(state.dtype, L, element_shape=(x.shape[0], self.out_size))

        def step(t: tf.Tensor, state: tf.Tensor, latents: tf.TensorArray) -> tuple:
            h, state = one_step(tf.gather(inputs, t), state * tf.gather(keep, t))
            return t + 1, state, latents.write(t, h)

        _, state, latents = tf.while_loop(lambda t, *_: t < L, step, (tf.constant(0), state, latents),
                                          maximum_iterations=L)
        return tf.transpose(latents.stack(), [1, 0, 2]), state


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


def build(network: str, size: int | tuple[int, ...], *, rng: np.random.Generator, dtype: tf.DType, compute: tf.DType,
          name: str, options: Mapping[str, Any]) -> Any:
    """The network of that name for features of `size`. Raises UserError where it does not fit them or `compute`."""
    builder = find(network)
    if compute == dtype:
        return builder(size, rng=rng, dtype=dtype, name=name, **options)
    keywords = inspect.signature(builder).parameters.values()
    if not any(p.name == "compute" or p.kind is p.VAR_KEYWORD for p in keywords):
        raise UserError(f"dtype={compute.name} is for convolutional networks; the network {network} has no use for it")
    return builder(size, rng=rng, dtype=dtype, compute=compute, name=name, **options)
