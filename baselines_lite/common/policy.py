"""The actor-critic: one object, the same weights for acting on [N] and for evaluating on [B].

It owns everything that its file must hold: weights, normalisation statistics and spaces. `step` takes raw
observations; `evaluate` takes normalised features, as a rollout stores them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import tensorflow as tf

from baselines_lite.common import networks
from baselines_lite.common.distributions import Pd, make_pd
from baselines_lite.common.flat import replaced
from baselines_lite.common.normalize import Normalize
from baselines_lite.common.observations import make_encoder
from baselines_lite.common.seeding import stream


class Acted(NamedTuple):
    """Actions [N, ...]; V(s) [N] and log pi(a|s) [N] too where they come for nothing."""

    actions: np.ndarray
    values: np.ndarray | None = None
    logp: np.ndarray | None = None


Actor = Callable[[np.ndarray, np.ndarray | None], Acted]


class ActorCritic(tf.Module):
    """A policy pi(a|s) and a value function V(s), each a head on a network.

    value_network: "shared" puts the value head on the policy's latent, "copy" gives it a second network of its own.
    Head gains: 0.01 for the policy (nearly uniform at the start), 1 for the value. `dtype` is that of weights, heads
    and losses (float64 is for exact tests); `compute` that of the networks' arithmetic, where they offer the choice.
    """

    def __init__(self, observation_space: gym.Space, action_space: gym.Space, *, network: str = "mlp",
                 network_options: Mapping[str, Any] | None = None, value_network: str = "copy",
                 logstd_init: float = 0.0, normalize_observations: bool = False, normalize_rewards: bool = False,
                 reward_gamma: float = 0.99, seed: int = 0, dtype: tf.DType = tf.float32,
                 compute: tf.DType | None = None) -> None:
        super().__init__()
        self.observation_space, self.action_space = observation_space, action_space
        self.network, self.network_options = network, dict(network_options or {})
        self.value_network = value_network
        self.info: dict[str, Any] = {}  # what `learn` knows: algorithm, environment, config; saved in the model file
        self.encoder = make_encoder(observation_space)
        self.pdtype = make_pd(action_space)
        obs_shape = self.encoder.shape if normalize_observations and self.encoder.normalizable else None
        self.normalize = Normalize(obs_shape, rewards=normalize_rewards, gamma=reward_gamma)

        rng = stream(seed, "weights")
        self.dtype, self.compute = dtype, compute or dtype
        build = dict(rng=rng, dtype=dtype, compute=self.compute, options=self.network_options)
        self.pi_net = networks.build(network, self.encoder.shape, name="pi", **build)
        self.vf_net = (self.pi_net if value_network == "shared"
                       else networks.build(network, self.encoder.shape, name="vf", **build))
        self.pi_head = networks.Dense(self.pi_net.out_size, self.pdtype.head_size, rng=rng, gain=0.01, dtype=dtype,
                                      name="pi_head")
        self.vf_head = networks.Dense(self.vf_net.out_size, 1, rng=rng, gain=1.0, dtype=dtype, name="vf_head")
        self.logstd = (tf.Variable(np.full(self.pdtype.head_size, logstd_init), dtype=dtype, name="logstd")
                       if self.pdtype.has_logstd else None)
        self._rng = stream(seed, "step")
        self._values_and_logp = tf.function(self._evaluate_actions, jit_compile=self.prefers_xla)
        self._values = tf.function(self.value, reduce_retracing=True)
        self._act = tf.function(self._act_with, reduce_retracing=True)
        self._weights_to_act = tf.function(self._copy_weights)

    def value(self, features: tf.Tensor) -> tf.Tensor:
        """V of features [B, ...]: [B]."""
        return tf.squeeze(self.vf_head(self.vf_net(features)), axis=-1)

    def evaluate(self, features: tf.Tensor) -> tuple[Pd, tf.Tensor]:
        """(pd, V) of features [B, ...], differentiable. A shared network runs once."""
        latent = self.pi_net(features)
        pd = self.pdtype.pd(self.pi_head(latent), self.logstd)
        if self.vf_net is not self.pi_net:
            latent = self.vf_net(features)
        return pd, tf.squeeze(self.vf_head(latent), axis=-1)

    def features(self, obs: np.ndarray) -> np.ndarray:
        """Features [N, ...] of raw observations [N, ...]: normalised float32 vectors, or uint8 pictures."""
        encoded = self.encoder(np.asarray(obs))
        return self.normalize.normalize_obs(encoded, out=np.empty(encoded.shape, self.encoder.dtype))

    @property
    def prefers_xla(self) -> bool:
        """Whether updates compile with XLA: it fuses dense layers; on a CPU it slows convolutions down."""
        return all(networks.runs_in_numpy(net) for net in (self.pi_net, self.vf_net))

    def actor(self) -> Actor:
        """A function (features [N, ...], noise [N, ...] or None for the mode) -> Acted, of a copy of the weights.

        Take a new one after each update. Where the networks can run in NumPy it costs 10 us on a few rows and gives
        actions only; elsewhere it calls the compiled policy (90 us and more), which gives all three.
        """
        if not networks.runs_in_numpy(self.pi_net):
            return self.compiled_actor()
        net, head, sample = self.pi_net.numpy(), self.pi_head.numpy(), self.pdtype.sample_numpy
        logstd = None if self.logstd is None else self.logstd.numpy()

        def act(features: np.ndarray, noise: np.ndarray | None) -> Acted:
            return Acted(sample(head(net(features)), logstd, noise))

        return act

    def compiled_actor(self) -> Actor:
        """`actor` by the compiled policy, whatever the network."""
        weights = self._weights_to_act()

        def act(features: np.ndarray, noise: np.ndarray | None) -> Acted:
            acted = self._act(weights, tf.constant(features), None if noise is None else tf.constant(noise))
            return Acted(*(x.numpy() for x in acted))

        return act

    def _copy_weights(self) -> list[tf.Tensor]:
        """The weights as tensors; dense layers' in the dtype that they compute in: cast once, not at every step."""
        compute = {id(v): m.compute for m in self.submodules if isinstance(m, networks.Dense) for v in (m.w, m.b)}
        return [tf.cast(v, compute.get(id(v), v.dtype)) for v in self.trainable_variables]

    def _act_with(self, weights: list[tf.Tensor], features: tf.Tensor, noise: tf.Tensor | None) -> Acted:
        with replaced(self, self.trainable_variables, weights):
            pd, values = self.evaluate(features)
        actions = pd.mode() if noise is None else pd.sample(noise)
        return Acted(actions, values, pd.logp(actions))

    def _evaluate_actions(self, features: tf.Tensor, actions: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        pd, values = self.evaluate(features)
        return values, pd.logp(actions)

    def values_and_logp(self, features: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """V [B] and log pi(a|s) [B] of features [B, ...] and actions [B, ...]; compiled once per B."""
        values, logp = self._values_and_logp(tf.constant(features), tf.constant(actions))
        return values.numpy(), logp.numpy()

    def values(self, features: np.ndarray) -> np.ndarray:
        """V [B] of features [B, ...]; compiled once for any B."""
        return self._values(tf.constant(features)).numpy()

    def step(self, obs: np.ndarray, state: Any = None, firsts: np.ndarray | None = None,
             deterministic: bool = False) -> tuple[np.ndarray, np.ndarray, Any, np.ndarray]:
        """(actions, values, state, logp) for a batch of raw observations [N, ...].

        `state` and `firsts` are for recurrent policies, others return state as it came. Box actions are unclipped: give
        the environment `policy.to_env(actions)`.
        """
        features = self.features(obs)
        noise = None if deterministic else self.pdtype.noise(self._rng, (len(features),))
        actions, values, logp = self.actor()(features, noise)
        if values is None:
            values, logp = self.values_and_logp(features, actions)
        return actions, values, state, logp

    def to_env(self, actions: np.ndarray) -> np.ndarray:
        """What the environment is given for actions [N, ...]: a Box's are clipped to its bounds."""
        return self.pdtype.to_env(actions)

    def save(self, path: str) -> None:
        """Writes weights, statistics, spaces and config to one safetensors file; see checkpoint.save_policy."""
        from baselines_lite.common.checkpoint import save_policy

        save_policy(path, self)
