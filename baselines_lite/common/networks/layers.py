"""Layers, each with `numpy()` where it also runs in NumPy, and how their weights begin."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from baselines_lite.common.networks.parameters import Parameter
from baselines_lite.common.system.errors import UserError

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


class Recorder:
    """Notes what layers take in and give, for KFAC: `records` are (layer, input, pre-activation) in their order.

    The tape watches the pre-activations, so that gradients by them can be taken; which is impossible, a UserError,
    inside a @tf.function of a network's own.
    """

    def __init__(self, tape: tf.GradientTape) -> None:
        self.records: list[tuple[Linear, tf.Tensor, tf.Tensor]] = []
        self._tape, self._graph = tape, tf.compat.v1.get_default_graph()

    def note(self, layer: Linear, x: tf.Tensor, y: tf.Tensor) -> None:
        """To be called by a layer that runs."""
        if tf.compat.v1.get_default_graph() is not self._graph:
            raise UserError("KFAC does not support the network: it runs a layer inside a @tf.function or a loop of its "
                            "own; remove that, or use a2c")
        self._tape.watch(y)
        self.records.append((layer, x, y))


class Linear(tf.Module):
    """A layer with weights W and biases b whose runs can be recorded."""

    recorder: Recorder | None = None

    def noted(self, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """The pre-activation y of the input x, noted where someone records this layer."""
        if self.recorder is not None:
            self.recorder.note(self, x, y)
        return y


@contextlib.contextmanager
def recording(layers: Iterable[Linear], tape: tf.GradientTape) -> Iterator[list[tuple[Linear, tf.Tensor, tf.Tensor]]]:
    """Within the block, the runs of these layers are noted; see Recorder."""
    recorder, layers = Recorder(tape), list(layers)
    for layer in layers:
        layer.recorder = recorder
    try:
        yield recorder.records
    finally:
        for layer in layers:
            layer.recorder = None


class Dense(Linear):
    """x [B, n] -> x W + b [B, m], W orthogonal with the given gain, b = 0. x comes in the dtype `compute`."""

    def __init__(self, n_in: int, n_out: int, *, rng: np.random.Generator, gain: float = np.sqrt(2),
                 dtype: tf.DType = tf.float32, compute: tf.DType | None = None, name: str = "dense") -> None:
        super().__init__()
        self.w = Parameter(orthogonal(rng, (n_in, n_out), gain), dtype, f"{name}/w")
        self.b = Parameter(np.zeros(n_out), dtype, f"{name}/b")
        self.compute = compute or dtype

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        w, b = (tf.cast(parameter.value(), self.compute) for parameter in (self.w, self.b))
        return self.noted(x, tf.matmul(x, w) + b)

    def numpy(self) -> NumpyFunction:
        """The layer with its present weights, in NumPy."""
        w, b = self.w.numpy(), self.b.numpy()

        def forward(x: np.ndarray) -> np.ndarray:
            y = x.dot(w)
            y += b
            return y

        return forward


class Conv(Linear):
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
        y, b = tf.nn.conv2d(x, w, self.stride, self.padding), tf.cast(self.b.value(), self.compute)
        # Where oneDNN does not compute it, bias_add's gradient adds up bfloat16 in bfloat16: ones come to 256 at most.
        return self.noted(x, y + b if self.compute == tf.bfloat16 else tf.nn.bias_add(y, b))


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


def runs_in_numpy(net: Any) -> bool:
    """Whether `net.numpy()` can be asked for: the network has it, and so have its layers, and what these consist of."""
    return hasattr(net, "numpy") and all(map(runs_in_numpy, getattr(net, "layers", ())))
