"""Action values of discrete actions, and the epsilon-greedy policy of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import tensorflow as tf

from baselines_lite.common.networks.builders import dense_layers
from baselines_lite.common.networks.distributions import CategoricalType
from baselines_lite.common.networks.layers import NumpyFunction, Sequential, runs_in_numpy
from baselines_lite.common.networks.options import Sizes
from baselines_lite.common.networks.parameters import Parameters
from baselines_lite.common.policies.policy import Acted, Actor, Policy
from baselines_lite.common.system.compiled import Compiled
from baselines_lite.common.system.errors import UserError


class QPolicy(Policy):
    """Q(s, a) of Discrete actions on one network; acts greedily, or at random with probability `epsilon`.

    The latent goes through the layers `hiddens` (relu) to the values of the K actions. With `dueling` there are two
    such streams, V and A, and Q = V + A - mean A (Wang et al. 2016, 1511.06581, eq. 9).
    """

    def __init__(self, observation_space: gym.Space, action_space: gym.Space, *, network: str = "mlp",
                 network_options: Mapping[str, Any] | None = None, hiddens: str | None = "256", dueling: bool = True,
                 epsilon: float = 0.0, **common: Any) -> None:
        super().__init__(observation_space, action_space, network=network, network_options=network_options, **common)
        if not isinstance(action_space, gym.spaces.Discrete):
            raise UserError(f"the action space {action_space} is not supported by deepq; supported is Discrete")
        self.settings |= {"hiddens": hiddens, "dueling": dueling, "epsilon": epsilon}
        self.pdtype, self.epsilon = CategoricalType(action_space), epsilon
        self.num_actions = self.pdtype.head_size
        self.net = self.build(self.encoder.size, "q")
        if hasattr(self.net, "state_size"):
            raise UserError(f"the network {network} has a memory, which deepq does not support; use "
                            "--network=mlp, or a2c, acer or ppo2")
        sizes = Sizes(hiddens).layers if hiddens else []
        self.a_head = self._head(sizes, self.num_actions, "a_head" if dueling else "q_head")
        self.v_head = self._head(sizes, 1, "v_head") if dueling else None
        self.parameters = Parameters([self.net, self.a_head, self.v_head])
        self._q = Compiled(self.q, xla=False, any_batch=True)

    def _head(self, sizes: list[int], outputs: int, name: str) -> Sequential:
        return dense_layers([self.net.out_size, *sizes, outputs], "relu", rng=self.weights_rng, dtype=self.dtype,
                            name=name)

    def q(self, features: tf.Tensor) -> tf.Tensor:
        """Q [B, K] of features [B, ...]."""
        with self.parameters.read_once():
            latent = self.net(features)
            a = self.a_head(latent)
            return a if self.v_head is None else self.v_head(latent) + a - tf.reduce_mean(a, axis=-1, keepdims=True)

    @property
    def prefers_xla(self) -> bool:
        """Whether updates compile with XLA: it fuses dense layers; on a CPU it slows convolutions down."""
        return runs_in_numpy(self.net)

    def q_function(self) -> NumpyFunction:
        """A function from features [N, ...] to Q [N, K] with the present weights: in NumPy where that is possible."""
        if not runs_in_numpy(self.net):
            return lambda features: self._q(tf.constant(features)).numpy()
        with self.parameters.arrays_once():
            net, a_head, v_head = self.net.numpy(), self.a_head.numpy(), self.v_head and self.v_head.numpy()

        def q(features: np.ndarray) -> np.ndarray:
            latent = net(features)
            a = a_head(latent)
            return a if v_head is None else v_head(latent) + a - a.mean(axis=-1, keepdims=True)

        return q

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Two uniform numbers in [0, 1) each: whether to act at random, and how."""
        return rng.random((*shape, 2))

    def actor(self) -> Actor:
        q = self.q_function()

        def act(features: np.ndarray, noise: np.ndarray | None, state: None = None, firsts: None = None) -> Acted:
            return Acted(self.choose(q, features, noise, self.epsilon))

        return act

    def choose(self, q: NumpyFunction, features: np.ndarray, noise: np.ndarray | None, epsilon: float
               ) -> np.ndarray:
        """Actions [N]: those with the greatest Q, or random ones where the noise [N, 2] says so; without it greedy."""
        if noise is None:
            return q(features).argmax(axis=-1)
        at_random = noise[:, 0] < epsilon
        random = (noise[:, 1] * self.num_actions).astype(np.int64)
        return random if at_random.all() else np.where(at_random, random, q(features).argmax(axis=-1))

    def values_and_logp(self, features: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Q(s, a) [N] and the log-probability [N] of actions under the epsilon-greedy policy."""
        q = self.q_function()(features)
        share = self.epsilon / self.num_actions
        with np.errstate(divide="ignore"):
            logp = np.log(np.where(q.argmax(axis=-1) == actions, 1 - self.epsilon + share, share))
        return np.take_along_axis(q, actions[:, None], axis=1)[:, 0], logp

    def to_env(self, actions: np.ndarray) -> np.ndarray:
        return self.pdtype.to_env(actions)
