"""Networks with memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from baselines_lite.common.networks.layers import LayerNorm, Sequential, orthogonal
from baselines_lite.common.networks.parameters import Parameter


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
