"""KFAC: the natural gradient with a Kronecker-factored Fisher matrix (Martens and Grosse 2015, 1503.05671; for
convolutions Grosse and Martens 2016, 1602.01407; for actor-critics ACKTR, Wu et al. 2017, 1708.05144).

A layer's parameters are one matrix V [n, m], its weights with the bias as last row. With inputs a (1 appended) and
gradients g of the log-likelihood by the pre-activations, one row per example, the layer's Fisher matrix is nearly
A (x) G with A = mean(a a^T) and G = mean(g g^T). The stages of an update:

    statistics     A, G of a batch, averaged over ranks, into running means
    inverses       (A + pi sqrt(damping) I)^-1 and (G + sqrt(damping) / pi I)^-1, now and then
    precondition   D = A^-1 V' G^-1 for the gradient V' of each layer
    KL clip        D <- nu D, so that lr^2 nu^2 sum(V' . D), about twice the KL of the step, is at most kfac_clip; where
                   policy and value have networks of their own, each has its own nu
    apply          velocity <- momentum velocity + D; theta <- theta - lr (1 - momentum) velocity
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from baselines_lite.common.networks.layers import Conv, Dense, recording
from baselines_lite.common.networks.parameters import Parameter, weights
from baselines_lite.common.optim.kronecker import (
    Factors,
    Inverses,
    Inverter,
    Layer,
    factor_sizes,
    factors_of,
    from_matrix,
    to_matrix,
)
from baselines_lite.common.optim.losses import Batch
from baselines_lite.common.policies.actor_critic import ActorCritic
from baselines_lite.common.system.compiled import Compiled
from baselines_lite.common.system.errors import UserError
from baselines_lite.common.system.mpi import Comm
from baselines_lite.common.system.state import Stateful


def kl_clip(inner: tf.Tensor, lr: tf.Tensor, clip: float) -> tf.Tensor:
    """nu in (0, 1]: what makes lr^2 nu^2 (gradient . D) at most `clip`; 1 where that product is not positive."""
    q = tf.square(lr) * inner
    return tf.where(q > clip, tf.sqrt(clip / tf.where(q > clip, q, 1.0)), 1.0)


# ---------------------------------------------------------------------------------------------------- the optimizer

Loss = Callable[[Batch], tuple[tf.Tensor, tf.Tensor]]  # -> loss [], figures to log
# -> sum over examples of log p(outputs), outputs drawn from the policy; the batch has "value_noise" [B] of -1 and 1
LogLikelihood = Callable[[Batch], tf.Tensor]


def layers_of(policy: ActorCritic) -> tuple[list[Layer], list[Parameter]]:
    """A policy's layers, and its parameters: w and b of each, then the log standard deviation if it has one.

    Raises UserError for a network with other parameters, or with layers that share theirs.
    """
    layers: list[Layer] = [m for m in policy.submodules if isinstance(m, Dense | Conv)]
    parameters = [p for layer in layers for p in (layer.w, layer.b)]
    parameters += [] if policy.logstd is None else [policy.logstd]
    known = {id(p) for p in parameters}
    foreign = [path for path, p in weights(policy).items() if p.trainable and id(p) not in known]
    if foreign:
        raise UserError(f"KFAC does not support the network {policy.network}: its {foreign[0]} is no part of a dense "
                        "or convolutional layer. Use a network of those, or a2c")
    if len(known) < len(parameters):
        raise UserError(f"KFAC does not support the network {policy.network}: two of its layers share a parameter")
    return layers, parameters


class Kfac(Stateful):
    """Steps a policy along its Kronecker-factored natural gradient; see the module's docstring for the stages.

    `loss` is what is stepped down; `log_likelihood` that of outputs which the policy's own distributions drew, summed
    over examples: its second moments are the Fisher matrix. The free log standard deviation of a Gaussian is no layer:
    its Fisher matrix is exactly 2 per dimension and example. The first `cold_iter` updates, and those before the first
    inverses are there, take plain momentum steps, theta <- theta - lr (1 - momentum) velocity too, their gradient
    scaled down to `max_grad_norm`. Statistics use `examples` of a batch and `positions` of a convolution's output,
    drawn anew each time (None: all). Raises UserError for networks with parameters outside Dense and Conv layers, or
    with a layer that is used twice or never.
    """

    STATE = ("factors", "inverter", "updates", "accumulated", "_left_out", "_velocity", "_natural", "rng")

    def __init__(self, policy: ActorCritic, comm: Comm, loss: Loss, log_likelihood: LogLikelihood, stats: Sequence[str],
                 *, kfac_clip: float = 0.001, momentum: float = 0.9, stats_decay: float = 0.99, damping: float = 0.01,
                 stats_every: int = 1, inverse_every: int = 10, cold_iter: int = 10, max_grad_norm: float | None = 0.5,
                 examples: int | None = None, positions: int | None = None, asynchronous: bool = False,
                 rng: np.random.Generator | None = None) -> None:
        self.policy, self.comm, self.stats = policy, comm, tuple(stats)
        self._loss, self._log_likelihood = loss, log_likelihood
        self.kfac_clip, self.momentum, self.stats_decay = kfac_clip, momentum, stats_decay
        self.stats_every, self.inverse_every, self.cold_iter = stats_every, inverse_every, cold_iter
        self.damping, self.max_grad_norm = damping, max_grad_norm
        self.examples, self.positions = examples, positions
        self.rng = rng or np.random.default_rng(0)
        self.layers, self.parameters = layers_of(policy)
        self.variables = policy.trainable_variables
        sizes = [factor_sizes(layer) for layer in self.layers]
        self.factors = [Factors(*(tf.Variable(tf.zeros([n, n], policy.dtype), trainable=False) for n in pair))
                        for pair in sizes]
        self.inverter = Inverter(comm, sizes, damping, asynchronous, delay=max(1, inverse_every // 2))
        self.updates = self.accumulated = self._left_out = 0
        self._velocity = [tf.Variable(tf.zeros_like(p.value()), trainable=False) for p in self.parameters]
        pi, vf = ({id(v) for v in variables} for variables in (policy.pi_variables, policy.vf_variables))
        networks = [pi | vf] if policy.vf_net is policy.pi_net else [pi, vf]
        self._networks = [[i for i, p in enumerate(self.parameters) if id(p.variable) in ids] for ids in networks]
        self._natural = False  # whether the last step was along the natural gradient
        self._gradient = Compiled(self._gradient_of, xla=policy.prefers_xla)
        self._statistics = Compiled(self._statistics_of, xla=policy.prefers_xla)
        self._merge = Compiled(self._merge_into_factors, xla=True)
        self._natural_step = Compiled(self._take_natural_step, xla=False)
        self._plain_step = Compiled(self._take_plain_step, xla=False)

    def update(self, data: Batch, lr: float) -> dict[str, float]:
        """One update on a batch; returns the stats' means over ranks and KFAC's own figures.

        `kfac_kl` is the KL of the step without momentum, to second order, and `kfac_nu` what made it so: of the policy
        where the value has a network of its own. A gradient, a step, statistics or inverses that are not finite are
        left out, on all ranks: `kfac_skipped` counts them, and a warning tells of the first.
        """
        self.updates += 1
        flawless = not self.skipped
        *g, figures = average(self.comm, self._gradient(data))
        if self.updates % self.stats_every == 0 or not self.accumulated:
            self.accumulate(data)
        warm = self.updates > self.cold_iter
        self.inverter.poll()
        if warm and self.accumulated and (self.inverter.inverses is None or self.updates % self.inverse_every == 0):
            self.inverter.refresh(self.factors)
        # As arrays here and below: what TensorFlow makes of a Python number it keeps for ever, by its value.
        nu, inner, taken = self._step(g, tf.constant(np.asarray(lr), self.policy.dtype), warm)
        self._left_out += not taken
        if flawless and self.skipped and self.comm.rank == 0:
            warnings.warn(f"KFAC left out a gradient, statistics or inverses that were not finite, in update "
                          f"{self.updates}; kfac_skipped counts them", stacklevel=2)
        return dict(zip(self.stats, figures.numpy().tolist(), strict=True)) | {
            "kfac_nu": nu, "kfac_kl": 0.5 * (lr * nu) ** 2 * inner, "kfac_skipped": float(self.skipped)}

    @property
    def skipped(self) -> int:
        """How many gradients, steps, statistics and sets of inverses were not finite."""
        return self._left_out + self.inverter.failed

    def accumulate(self, data: Batch) -> None:
        """Takes statistics of (part of) a batch, averaged over ranks, into the running means. One Allreduce."""
        count = len(data["obs"])
        if self.examples is not None and self.examples < count:
            rows = self.rng.permutation(count)[: self.examples].astype(np.int32)
            data, count = {name: tf.gather(array, rows) for name, array in data.items()}, self.examples
        noise = self.rng.choice([-1.0, 1.0], size=count)
        # Where positions are, as shares of a picture's: one from each of so many equal parts.
        parts = self.positions or 0
        spots = (np.arange(parts) + self.rng.random((len(self.layers), parts))) / max(parts, 1)
        data = data | {"value_noise": tf.constant(noise, self.policy.dtype)}
        spots = tf.constant(spots, self.policy.dtype)
        new = average(self.comm, self.comm.together(lambda: self._statistics(data, spots)))
        decay = min(self.stats_decay, 1.0 - 1.0 / (self.accumulated + 1))  # a plain mean at first
        merged = bool(self._merge(new, tf.constant(np.asarray(decay), self.policy.dtype)))
        self.accumulated += merged
        self._left_out += not merged

    def _gradient_of(self, data: Batch) -> list[tf.Tensor]:
        """The gradient by each of `parameters`, and the stats."""
        with tf.GradientTape() as tape:
            loss, stats = self._loss(data)
        g = tape.gradient(loss, self.variables, unconnected_gradients="zero")
        parts = self.policy.parameters.split(g, self.variables)
        return [*(parts[p] for p in self.parameters), stats]

    def _statistics_of(self, data: Batch, spots: tf.Tensor) -> list[tf.Tensor]:
        """The factors A, G of every layer, one after the other; spots [layers, positions] in [0, 1)."""
        with tf.GradientTape(watch_accessed_variables=False) as tape, recording(self.layers, tape) as records:
            total = self._log_likelihood(data)
        seen = {id(layer): (x, y) for layer, x, y in records}
        if len(seen) < len(records) or len(seen) < len(self.layers):
            raise UserError(f"KFAC does not support the network {self.policy.network}: a layer is used twice or never, "
                            "or inside a @tf.function of its own")
        gradients = tape.gradient(total, [seen[id(layer)][1] for layer in self.layers])
        found = []
        for layer, g, spot in zip(self.layers, gradients, tf.unstack(spots), strict=True):
            if g is None or (isinstance(layer, Dense) and len(g.shape) > 2):
                raise UserError(f"KFAC does not support the network {self.policy.network}: a dense layer is applied to "
                                "more than one vector per example, or a layer changes neither policy nor value")
            every, positions = int(np.prod(g.shape[1:-1])), None
            if self.positions is not None and self.positions < every:
                positions = tf.minimum(tf.cast(spot * every, tf.int32), every - 1)  # rounding may reach 1
            found += factors_of(layer, seen[id(layer)][0], g, positions)
        return found

    def _merge_into_factors(self, new: list[tf.Tensor], decay: tf.Tensor) -> tf.Tensor:
        """Takes new factors into the running means, unless one is not finite; whether it did."""
        finite = all_finite(new)
        for old, part in zip([f for pair in self.factors for f in pair], new, strict=True):
            old.assign(tf.where(finite, decay * old + (1 - decay) * part, old))
        return finite

    def _step(self, g: list[tf.Tensor], lr: tf.Tensor, warm: bool) -> tuple[float, float, float]:
        """A step of one or the other kind; (nu, gradient . D, whether it was finite and taken)."""
        if not warm or self.inverter.inverses is None:
            return 1.0, 0.0, float(self._plain_step(g, lr))
        if not self._natural:  # what plain steps left would move the policy past the KL clip
            for velocity in self._velocity:
                velocity.assign(tf.zeros_like(velocity))
            self._natural = True
        return tuple(float(x) for x in self._natural_step(g, self.inverter.inverses, lr))

    def _take_natural_step(self, g: list[tf.Tensor], inverses: list[Inverses], lr: tf.Tensor
                           ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Preconditions, clips and applies a gradient; (nu, gradient . D, whether the step was finite and taken).

        Of two networks, the policy's nu and product.
        """
        D = self._preconditioned(g, inverses)
        inner = [tf.add_n([tf.reduce_sum(g[i] * D[i]) for i in network]) for network in self._networks]
        nus = [kl_clip(x, lr, self.kfac_clip) for x in inner]
        for nu, network in zip(nus, self._networks, strict=True):
            for i in network:
                D[i] = nu * D[i]
        # Inverses are positive definite, and so the products are not negative, unless rounding has spoiled them.
        taken = self._apply(D, lr, tf.reduce_all([x >= 0 for x in inner]))
        return nus[0], inner[0], tf.cast(taken, lr.dtype)

    def _preconditioned(self, g: list[tf.Tensor], inverses: list[Inverses]) -> list[tf.Tensor]:
        """D, of the shapes of the gradient g, which are those of `parameters`."""
        D: list[tf.Tensor] = []
        for i, (layer, inverse) in enumerate(zip(self.layers, inverses, strict=True)):
            V = to_matrix(g[2 * i], g[2 * i + 1])
            D += from_matrix(tf.matmul(tf.matmul(inverse.A, V), inverse.G), layer.w)
        if self.policy.logstd is not None:
            D.append(g[-1] / (2.0 + self.damping))
        return D

    def _take_plain_step(self, g: list[tf.Tensor], lr: tf.Tensor) -> tf.Tensor:
        """A momentum step along a gradient, clipped; whether it was finite and taken."""
        if self.max_grad_norm is not None:
            scale = self.max_grad_norm / tf.maximum(tf.linalg.global_norm(g), self.max_grad_norm)
            g = [scale * x for x in g]
        return self._apply(g, lr, tf.constant(True))

    def _apply(self, D: list[tf.Tensor], lr: tf.Tensor, valid: tf.Tensor) -> tf.Tensor:
        """velocity <- momentum velocity + D; theta <- theta - lr (1 - momentum) velocity; whether it was taken.

        Nothing changes if D is not finite, or not valid.
        """
        taken = valid & all_finite(D)
        for parameter, velocity, x in zip(self.parameters, self._velocity, D, strict=True):
            new = tf.where(taken, self.momentum * velocity + x, velocity)
            parameter.assign(parameter.value() - tf.where(taken, lr * (1 - self.momentum) * new, tf.zeros_like(new)))
            velocity.assign(new)
        return taken


def all_finite(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """Whether all elements of all tensors are finite: the sum of a tensor with one that is not is not."""
    return tf.reduce_all(tf.math.is_finite([tf.reduce_sum(tf.abs(x)) for x in tensors]))


def average(comm: Comm, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """The means of tensors over ranks, in one Allreduce."""
    if comm.size == 1:
        return list(tensors)
    vector = comm.mean(np.concatenate([x.numpy().ravel() for x in tensors]))
    parts = np.split(vector, np.cumsum([int(np.prod(x.shape)) for x in tensors])[:-1])
    return [tf.constant(part.reshape(x.shape)) for part, x in zip(parts, tensors, strict=True)]
