"""The actor-critic: a policy and a value function on one or two networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import tensorflow as tf

from baselines_lite.common.networks.distributions import Pd, make_pd
from baselines_lite.common.networks.layers import Dense, runs_in_numpy
from baselines_lite.common.networks.parameters import Parameter, Parameters, trainable
from baselines_lite.common.policies.policy import Acted, Actor, Policy
from baselines_lite.common.system.compiled import Compiled
from baselines_lite.common.system.errors import unknown


class ActorCritic(Policy):
    """A policy pi(a|s) and a value function V(s), each a head on a network.

    With a recurrent network, calls also take `state` [B, S], the memory before the step, and `firsts`, which is true
    where an episode begins, so that the memory is zeroed first. Features and firsts of a sequence are [B, L, ...], and
    what is computed of them comes out flat, [B * L].

    value_network: "shared" puts the value head on the policy's latent, "copy" gives it a second network of its own.
    joined: small parameters of policy and value lie in one variable, which one optimizer trains at less cost; otherwise
    apart, in `pi_variables` and `vf_variables`.
    action_scale: a bounded Box's actions are brought from [-1, 1] to its bounds for the environment.
    Head gains: 0.01 for the policy (nearly uniform at the start), 1 for the value.
    """

    vf_outputs = 1  # of the value's head

    def __init__(self, observation_space: gym.Space, action_space: gym.Space, *, network: str = "mlp",
                 network_options: Mapping[str, Any] | None = None, value_network: str = "copy",
                 logstd_init: float = 0.0, joined: bool = False, action_scale: bool = False, **common: Any) -> None:
        super().__init__(observation_space, action_space, network=network, network_options=network_options, **common)
        if value_network not in ("shared", "copy"):
            raise unknown("value_network", value_network, ("shared", "copy"))
        self.value_network = self.settings["value_network"] = value_network
        self.joined = self.settings["joined"] = joined
        self.settings["action_scale"] = action_scale
        self.pdtype = make_pd(action_space, action_scale)
        self.pi_net = self.build(self.encoder.size, "pi")
        self.vf_net = self.pi_net if value_network == "shared" else self.build(self.encoder.size, "vf")
        nets = [self.pi_net] if self.vf_net is self.pi_net else [self.pi_net, self.vf_net]
        self._state_sizes = [net.state_size for net in nets if hasattr(net, "state_size")]
        self.recurrent = bool(self._state_sizes)
        head = dict(rng=self.weights_rng, dtype=self.dtype)
        self.pi_head = Dense(self.pi_net.out_size, self.pdtype.head_size, gain=0.01, name="pi_head", **head)
        self.vf_head = Dense(self.vf_net.out_size, self.vf_outputs, gain=1.0, name="vf_head", **head)
        self.logstd = (Parameter(np.full(self.pdtype.head_size, logstd_init), self.dtype, "logstd")
                       if self.pdtype.has_logstd else None)
        pi, vf = [self.pi_net, self.pi_head, self.logstd], [self.vf_net, self.vf_head]
        self.parameters = Parameters(pi + vf) if joined else Parameters(pi, vf)
        self._values_and_logp = Compiled(self._evaluate_actions, xla=self.prefers_xla)
        self._distribution = Compiled(self.head_and_logstd, xla=self.prefers_xla)
        self._values = Compiled(self.value, xla=False, any_batch=True)
        self._act = Compiled(self._act_with, xla=self.recurrent and self.prefers_xla, any_batch=True)
        self._logp = Compiled(self._logp_of, xla=False, any_batch=True)
        self._weights_to_act = Compiled(self._copy_weights, xla=False)

    @property
    def pi_variables(self) -> list[tf.Variable]:
        """What the policy depends on: its network, head and log standard deviation. RuntimeError if `joined`."""
        self._check_apart()
        return trainable(self.pi_net, self.pi_head, self.logstd)

    @property
    def vf_variables(self) -> list[tf.Variable]:
        """What the value depends on beside a shared network: its own network and head. RuntimeError if `joined`."""
        self._check_apart()
        return trainable(self.vf_head) if self.vf_net is self.pi_net else trainable(self.vf_net, self.vf_head)

    def _check_apart(self) -> None:
        if self.joined:
            raise RuntimeError("the parameters of policy and value lie in one variable, policy.trainable_variables; to "
                               "train them apart, set one_optimizer = False in the algorithm's Config")

    def initial_state(self, num_env: int) -> np.ndarray | None:
        return np.zeros((num_env, sum(self._state_sizes)), self.dtype.as_numpy_dtype) if self.recurrent else None

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return self.pdtype.noise(rng, shape)

    def latents(self, features: tf.Tensor, state: tf.Tensor | None, firsts: tf.Tensor | None
                ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]:
        """(latent of the policy, latent of the value, state afterwards). A shared network runs once."""
        shared = self.vf_net is self.pi_net
        if not self.recurrent:
            latent = self.pi_net(features)
            return latent, latent if shared else self.vf_net(features), None
        states = tf.split(state, self._state_sizes, axis=-1)
        found = [net(features, before, firsts) for net, before in zip((self.pi_net, self.vf_net), states, strict=False)]
        flat = [tf.reshape(latent, [-1, latent.shape[-1]]) for latent, _ in found]
        return flat[0], flat[-1], tf.concat([after for _, after in found], axis=-1)

    def value(self, features: tf.Tensor, state: tf.Tensor | None = None, firsts: tf.Tensor | None = None) -> tf.Tensor:
        """V of features [B, ...]: [B]."""
        return self.evaluate(features, state, firsts)[1]

    def evaluate(self, features: tf.Tensor, state: tf.Tensor | None = None, firsts: tf.Tensor | None = None
                 ) -> tuple[Pd, tf.Tensor]:
        """(pd, V) of features [B, ...], differentiable."""
        with self.parameters.read_once():
            pi, vf, _ = self.latents(features, state, firsts)
            head, values = self.heads(pi, vf)
            return self.pdtype.pd(head, self.logstd and self.logstd.value()), values

    def heads(self, pi_latent: tf.Tensor, vf_latent: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """(what the distribution is made of [B, n], V [B]) of latents [B, k]."""
        return self.pi_head(pi_latent), tf.squeeze(self.vf_head(vf_latent), axis=-1)

    @property
    def prefers_xla(self) -> bool:
        """Whether updates compile with XLA: it fuses dense layers; on a CPU it slows convolutions down."""
        return all(runs_in_numpy(net) or getattr(net, "xla", False) for net in (self.pi_net, self.vf_net))

    def actor(self) -> Actor:
        """A function (features, noise or None for the mode, state, firsts) -> Acted, of a copy of the weights.

        Take a new one after each update: the old one may change with it. Where the networks can run in NumPy it costs
        10 us on a few rows and gives no values; elsewhere it calls the compiled policy, which gives all of Acted.
        """
        if not runs_in_numpy(self.pi_net):
            return self.compiled_actor()
        with self.parameters.arrays_once():
            net, head, sample = self.pi_net.numpy(), self.pi_head.numpy(), self.pdtype.sample_numpy
            logstd = None if self.logstd is None else self.logstd.numpy()

        def act(features: np.ndarray, noise: np.ndarray | None, state: None = None, firsts: None = None) -> Acted:
            heads = head(net(features))
            return Acted(sample(heads, logstd, noise), heads=heads)

        return act

    def compiled_actor(self) -> Actor:
        """`actor` by the compiled policy, whatever the network."""
        weights, sample = self._weights_to_act(), self.pdtype.sample_numpy
        logstd = None if self.logstd is None else self.logstd.numpy()

        def act(features: np.ndarray, noise: np.ndarray | None, *memory: np.ndarray) -> Acted:
            heads, values, state = self._act(weights, *map(tf.constant, (features, *memory)))
            heads = heads.numpy()
            return Acted(sample(heads, logstd, noise), values.numpy(), heads, None if state is None else state.numpy())

        return act

    def _copy_weights(self) -> list[tf.Tensor]:
        """The parameters; dense layers' in the dtype that they compute in: cast once, not at every step."""
        compute = {id(p): m.compute for m in self.submodules if isinstance(m, Dense) for p in (m.w, m.b)}
        return [tf.cast(p.value(), compute.get(id(p), p.dtype)) for p in self.parameters]

    def _act_with(self, weights: list[tf.Tensor], features: tf.Tensor, state: tf.Tensor | None = None,
                  firsts: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]:
        if self.recurrent:
            features, firsts = features[:, None], firsts[:, None]  # sequences of one step
        with self.parameters.given(weights):
            pi, vf, state = self.latents(features, state, firsts)
            return *self.heads(pi, vf), state

    def logp(self, heads: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """log pi(a|s) [...] of actions [..., k] by the policy head's outputs [..., n], with the present logstd."""
        batch = heads.shape[:-1]
        flat = (array.reshape(-1, *array.shape[len(batch):]) for array in (heads, actions))
        return self._logp(*map(tf.constant, flat)).numpy().reshape(batch)

    def _logp_of(self, heads: tf.Tensor, actions: tf.Tensor) -> tf.Tensor:
        return self.pdtype.pd(heads, self.logstd and self.logstd.value()).logp(actions)

    def _evaluate_actions(self, actions: tf.Tensor, *inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        pd, values = self.evaluate(*inputs)
        return values, pd.logp(actions)

    def head_and_logstd(self, obs: tf.Tensor, *memory: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """What distributions are made of, differentiable: head outputs [B, n] and, for a Gaussian, logstd [B, n]."""
        with self.parameters.read_once():
            head = self.pi_head(self.latents(obs, *(memory or (None, None)))[0])
            return (head,) if self.logstd is None else (head, tf.broadcast_to(self.logstd.value(), tf.shape(head)))

    def distribution(self, data: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """What the present distributions of samples are made of, "old_head" and, for a Gaussian, "old_logstd"."""
        memory = (data["states"], data["firsts"]) if self.recurrent else ()
        found = self._distribution(data["obs"], *memory)
        shape = [*data["actions"].shape[:2], -1] if self.recurrent else [-1, found[0].shape[-1]]
        return {name: tf.reshape(x, shape) for name, x in zip(("old_head", "old_logstd"), found, strict=False)}

    def kl_since(self, data: Mapping[str, tf.Tensor]) -> float:
        """Mean KL(old || present) in nats over samples that hold their old `distribution`."""
        then, now = ([tf.reshape(x, [-1, x.shape[-1]]) for x in parts.values()]
                     for parts in ({k: v for k, v in data.items() if k.startswith("old_")}, self.distribution(data)))
        return float(tf.reduce_mean(self.pdtype.pd(*then).kl(self.pdtype.pd(*now))))

    def values_and_logp(self, features: np.ndarray, actions: np.ndarray, state: np.ndarray | None = None,
                        firsts: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """V [B] and log pi(a|s) [B] of features [B, ...] and actions [B, ...]; compiled once per B."""
        inputs = (actions, features) if state is None else (actions, features, state, firsts)
        values, logp = self._values_and_logp(*map(tf.constant, inputs))
        return values.numpy(), logp.numpy()

    def values(self, features: np.ndarray, state: np.ndarray | None = None, firsts: np.ndarray | None = None
               ) -> np.ndarray:
        """V [B] of single steps with features [B, ...], state [B, S] and firsts [B]; in NumPy where possible."""
        if runs_in_numpy(self.vf_net) and self.vf_outputs == 1:  # an ActorQ's V is a mean over actions
            with self.parameters.arrays_once():
                net, head = self.vf_net.numpy(), self.vf_head.numpy()
            return head(net(features))[:, 0]
        inputs = (features,) if state is None else (features[:, None], state, firsts[:, None])
        return self._values(*map(tf.constant, inputs)).numpy()

    def to_env(self, actions: np.ndarray) -> np.ndarray:
        """As Policy's; a Box's actions are clipped to its bounds, with action_scale brought to them first."""
        return self.pdtype.to_env(actions)
