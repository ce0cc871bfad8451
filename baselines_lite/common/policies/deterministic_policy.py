"""A deterministic policy of continuous actions, and the action values that it climbs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import tensorflow as tf

from baselines_lite.common.networks.layers import Dense, NumpyFunction, runs_in_numpy
from baselines_lite.common.networks.parameters import Parameters, trainable
from baselines_lite.common.policies.policy import Acted, Actor, Policy
from baselines_lite.common.system.compiled import Compiled
from baselines_lite.common.system.errors import UserError

HEAD_RANGE = 3e-3  # of the last layers' initial weights: actions and values begin near 0 (1509.02971, section 7)


class DeterministicPolicy(Policy):
    """pi(s) in [-1, 1]^d, scaled to the bounds of a Box for the environment, and Q(s, a).

    Both are networks of the same kind; Q's takes features and action side by side. `dtype` and `compute` as Policy's.
    """

    def __init__(self, observation_space: gym.Space, action_space: gym.Space, *, network: str = "mlp",
                 network_options: Mapping[str, Any] | None = None, **common: Any) -> None:
        super().__init__(observation_space, action_space, network=network, network_options=network_options, **common)
        space = action_space
        if 0 in (space.shape or ()):
            raise UserError(f"the action space {space} is empty, which is not supported")
        if not isinstance(space, gym.spaces.Box) or not np.issubdtype(space.dtype, np.floating):
            raise UserError(f"the action space {space} is not supported by ddpg; supported is Box of floating-point "
                            "numbers")
        if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
            raise UserError(f"the action space {space} is not supported by ddpg: its bounds must be finite")
        if self.encoder.picture_shape is not None:
            raise UserError(f"the network {network} for pictures is not supported by ddpg; use --network=mlp")
        self.num_actions = int(np.prod(space.shape))
        self._low, self._high = space.low, space.high
        low, high = space.low / 2, space.high / 2  # halves first: bounds may be as far apart as numbers go
        self._centre, self._reach = low + high, high - low
        size = self.encoder.size
        self.pi_net, self.q_net = self.build(size, "pi"), self.build(size + self.num_actions, "q")
        if hasattr(self.pi_net, "state_size"):
            raise UserError(f"the network {network} has a memory, which ddpg does not support; use "
                            "--network=mlp, or a2c or ppo2")
        self.pi_head = self._head(self.pi_net.out_size, self.num_actions, "pi_head")
        self.q_head = self._head(self.q_net.out_size, 1, "q_head")
        self.parameters = Parameters([self.pi_net, self.pi_head], [self.q_net, self.q_head])
        self._q = Compiled(self.q, xla=False, any_batch=True)
        self._pi = Compiled(self.pi, xla=False, any_batch=True)

    def _head(self, n_in: int, n_out: int, name: str) -> Dense:
        head = Dense(n_in, n_out, rng=self.weights_rng, dtype=self.dtype, name=name)
        head.w.assign(self.weights_rng.uniform(-HEAD_RANGE, HEAD_RANGE, (n_in, n_out)))
        return head

    @property
    def pi_variables(self) -> list[tf.Variable]:
        """What pi depends on."""
        return trainable(self.pi_net, self.pi_head)

    @property
    def q_variables(self) -> list[tf.Variable]:
        """What Q depends on."""
        return trainable(self.q_net, self.q_head)

    def pi(self, features: tf.Tensor) -> tf.Tensor:
        """Actions [B, d] in [-1, 1] of features [B, n]."""
        with self.parameters.read_once():
            return tf.tanh(self.pi_head(self.pi_net(features)))

    def q(self, features: tf.Tensor, actions: tf.Tensor) -> tf.Tensor:
        """Q [B] of features [B, n] and actions [B, d]."""
        with self.parameters.read_once():
            return tf.squeeze(self.q_head(self.q_net(tf.concat([features, actions], axis=1))), axis=-1)

    def q_weights(self) -> list[tf.Tensor]:
        """The weights of Q's hidden layers, without biases and the last layer."""
        return [layer.w.value() for layer in self.q_net.submodules if isinstance(layer, Dense)]

    @property
    def prefers_xla(self) -> bool:
        """Whether updates compile with XLA."""
        return runs_in_numpy(self.pi_net)

    def pi_function(self) -> NumpyFunction:
        """A function from features [N, n] to actions [N, d] with the present weights: in NumPy where possible."""
        if not runs_in_numpy(self.pi_net):
            return lambda features: self._pi(tf.constant(features)).numpy()
        with self.parameters.arrays_once():
            net, head = self.pi_net.numpy(), self.pi_head.numpy()
        return lambda features: np.tanh(head(net(features)))

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> None:
        """None: the policy draws nothing."""

    def actor(self) -> Actor:
        pi = self.pi_function()

        def act(features: np.ndarray, noise: None = None, state: None = None, firsts: None = None) -> Acted:
            return Acted(pi(features))

        return act

    def values_and_logp(self, features: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, None]:
        """Q(s, a) [N]; a deterministic policy has no probability density."""
        return self._q(tf.constant(features), tf.constant(actions)).numpy(), None

    def to_env(self, actions: np.ndarray) -> np.ndarray:
        """Actions [N, d] scaled from [-1, 1] to the Box's bounds, clipped to them, in its shape."""
        scaled = self._centre + self._reach * actions.reshape(len(actions), *self._reach.shape)
        return np.minimum(np.maximum(scaled.astype(self._low.dtype), self._low), self._high)
