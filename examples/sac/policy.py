"""What SAC trains: a squashed Gaussian pi(a|s), two action values Q(s, a), and the temperature alpha."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import tensorflow as tf

from baselines_lite.common.networks.distributions import DiagGaussian, make_pd
from baselines_lite.common.networks.layers import Dense, NumpyFunction, runs_in_numpy
from baselines_lite.common.networks.parameters import Parameter, Parameters, trainable
from baselines_lite.common.policies.policy import Acted, Actor, Policy
from baselines_lite.common.system.compiled import Compiled
from baselines_lite.common.system.errors import UserError

LOGSTD = (-20.0, 2.0)  # bounds of the log standard deviation, as in the authors' code: its exponential stays finite
INSIDE = 1 - 1e-6  # where an action that tanh has rounded to 1 is taken to be


def squashed(pd: DiagGaussian, u: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """(a = tanh(u) [B, d], log pi(a|s) [B]) of draws u [B, d] from a Gaussian (appendix C).

    log pi(a|s) = log N(u) - sum_i log(1 - tanh(u_i)^2), whose logarithm is 2 (log 2 - u - softplus(-2 u)): finite also
    where tanh rounds to 1.
    """
    return tf.tanh(u), pd.logp(u) - 2 * tf.reduce_sum(np.log(2) - u - tf.nn.softplus(-2 * u), axis=-1)


class SoftActorCritic(Policy):
    """pi(a|s) on [-1, 1]^d, scaled to the bounds of a Box for the environment; Q1, Q2 and log alpha.

    Each is a network of its own; Q's take features and action side by side. The head of pi begins near 0, where its
    standard deviation is 1 and its actions are spread over all of [-1, 1]. `dtype` and `compute` as Policy's.
    """

    def __init__(self, observation_space: gym.Space, action_space: gym.Space, *, network: str = "mlp",
                 network_options: Mapping[str, Any] | None = None, **common: Any) -> None:
        super().__init__(observation_space, action_space, network=network, network_options=network_options, **common)
        if not (isinstance(action_space, gym.spaces.Box) and action_space.dtype.kind == "f"
                and action_space.is_bounded()):
            raise UserError(f"the action space {action_space} is not supported by sac; supported is Box of "
                            "floating-point numbers with finite bounds")
        if self.encoder.picture_shape is not None:
            raise UserError(f"the network {network} for pictures is not supported by sac; use --network=mlp")
        self.pdtype = make_pd(action_space, scale=True)
        size, d = self.encoder.size, self.pdtype.head_size
        self.pi_net, self.q_nets = self.build(size, "pi"), [self.build(size + d, name) for name in ("q1", "q2")]
        if hasattr(self.pi_net, "state_size"):
            raise UserError(f"the network {network} has a memory, which sac does not support; use --network=mlp")
        head = dict(rng=self.weights_rng, dtype=self.dtype)
        self.pi_head = Dense(self.pi_net.out_size, 2 * d, gain=0.01, name="pi_head", **head)
        self.q_heads = [Dense(net.out_size, 1, gain=1.0, name="q_head", **head) for net in self.q_nets]
        self.log_alpha = Parameter(np.zeros(1), self.dtype, "log_alpha")
        self.parameters = Parameters([self.pi_net, self.pi_head], [self.q_nets, self.q_heads])
        self._head = Compiled(self.head, xla=False, any_batch=True)
        self._evaluate = Compiled(self.evaluate, xla=False, any_batch=True)

    @property
    def pi_variables(self) -> list[tf.Variable]:
        """What pi depends on."""
        return trainable(self.pi_net, self.pi_head)

    @property
    def q_variables(self) -> list[tf.Variable]:
        """What Q1 and Q2 depend on."""
        return trainable(self.q_nets, self.q_heads)

    @property
    def alpha(self) -> tf.Tensor:
        """The temperature []: what a nat of entropy is worth in rewards."""
        return tf.exp(self.log_alpha.value()[0])

    @property
    def prefers_xla(self) -> bool:
        """Whether updates compile with XLA."""
        return runs_in_numpy(self.pi_net)

    def head(self, features: tf.Tensor) -> tf.Tensor:
        """Means and log standard deviations side by side [B, 2 d], of features [B, n]."""
        with self.parameters.read_once():
            return self.pi_head(self.pi_net(features))

    def pi(self, features: tf.Tensor) -> DiagGaussian:
        """The distribution of u = atanh(a) where features [B, n] are seen."""
        mean, logstd = tf.split(self.head(features), 2, axis=-1)
        return self.pdtype.pd(mean, tf.clip_by_value(logstd, *LOGSTD))

    def draw(self, features: tf.Tensor, noise: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """(a [B, d], log pi(a|s) [B]), differentiable functions of features [B, n] and N(0, 1) noise [B, d] (8)."""
        pd = self.pi(features)
        return squashed(pd, pd.sample(noise))

    def q(self, features: tf.Tensor, actions: tf.Tensor) -> tf.Tensor:
        """Q1 and Q2 [2, B] of features [B, n] and actions [B, d]."""
        x = tf.concat([features, actions], axis=-1)
        with self.parameters.read_once():
            return tf.stack([head(net(x))[:, 0] for net, head in zip(self.q_nets, self.q_heads, strict=True)])

    def evaluate(self, features: tf.Tensor, actions: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """(min(Q1, Q2) [B], log pi(a|s) [B]) of features [B, n] and actions [B, d]."""
        u = tf.atanh(tf.clip_by_value(actions, -INSIDE, INSIDE))
        return tf.reduce_min(self.q(features, actions), axis=0), squashed(self.pi(features), u)[1]

    def head_function(self) -> NumpyFunction:
        """`head` with the present weights: in NumPy where the network can."""
        if not runs_in_numpy(self.pi_net):
            return lambda features: self._head(tf.constant(features)).numpy()
        with self.parameters.arrays_once():
            net, head = self.pi_net.numpy(), self.pi_head.numpy()
        return lambda features: head(net(features))

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return self.pdtype.noise(rng, shape)

    def actor(self) -> Actor:
        head = self.head_function()

        def act(features: np.ndarray, noise: np.ndarray | None, state: None = None, firsts: None = None) -> Acted:
            mean, logstd = np.split(head(features), 2, axis=-1)
            return Acted(np.tanh(self.pdtype.sample_numpy(mean, np.clip(logstd, *LOGSTD), noise)))

        return act

    def values_and_logp(self, features: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`evaluate` of arrays."""
        values, logp = self._evaluate(tf.constant(features), tf.constant(actions))
        return values.numpy(), logp.numpy()

    def to_env(self, actions: np.ndarray) -> np.ndarray:
        return self.pdtype.to_env(actions)
