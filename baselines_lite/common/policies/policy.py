"""What every policy has: one object, the same weights for acting on [N] and for evaluating on [B].

It owns everything that its file must hold: weights, normalisation statistics and spaces. `step` takes raw observations;
what is evaluated are normalised features, as a rollout stores them.
"""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, Self

import gymnasium as gym
import numpy as np
import tensorflow as tf

from baselines_lite.common.networks.builders import build, takes_pictures
from baselines_lite.common.networks.observations import Encoder, brief
from baselines_lite.common.networks.options import SMALL
from baselines_lite.common.networks.parameters import Parameters, weights
from baselines_lite.common.policies.file_format import Held, encoded, write
from baselines_lite.common.policies.normalize import Normalize
from baselines_lite.common.system import tf_setup
from baselines_lite.common.system.errors import UserError, counted
from baselines_lite.common.system.mpi import Comm
from baselines_lite.common.system.seeding import stream
from baselines_lite.common.system.state import Stateful


class Acted(NamedTuple):
    """Actions [N, ...]; of an actor-critic also V(s) [N] if it comes for nothing, the policy head's outputs [N, n], and
    the memory afterwards [N, S].
    """

    actions: np.ndarray
    values: np.ndarray | None = None
    heads: np.ndarray | None = None
    state: np.ndarray | None = None


# (features [N, ...], noise [N, ...] or None for the mode, state [N, S] and firsts [N] if recurrent) -> Acted
Actor = Callable[..., Acted]


class Policy(tf.Module, Stateful):
    """What every policy has: spaces, features of observations, normalisation statistics, and what its file must hold.

    A subclass adds networks and the methods that are not implemented here; its constructor takes the spaces and, by
    keyword, its `settings`, so that its file can give it back. `dtype` is that of weights, heads and losses (float64 is
    for exact tests); `compute` that of the networks' arithmetic, where they offer the choice. `weights_rng` draws the
    initial weights, those of heads too that a subclass adds: the seed's own stream, unless given.
    """

    STATE = ("variables", "normalize", "_rng")

    KINDS: ClassVar[dict[str, type[Policy]]] = {}  # every subclass by its `kind`, for model files
    recurrent = False
    parameters = Parameters()  # what a subclass has joined of its parts
    stopped_by: signal.Signals | None = None  # SIGINT, SIGTERM or SIGUSR1, where that ended `learn` early

    def __init_subclass__(cls) -> None:
        Policy.KINDS[cls.kind()] = cls

    @classmethod
    def kind(cls) -> str:
        """What model files call this class: "ActorCritic", or with its module where it is one's own."""
        own = not cls.__module__.startswith("baselines_lite.common.")
        return f"{cls.__module__}.{cls.__qualname__}" if own else cls.__qualname__

    def __init__(self, observation_space: gym.Space, action_space: gym.Space, *, network: str,
                 network_options: Mapping[str, Any] | None, normalize_observations: bool = False,
                 normalize_rewards: bool = False, reward_gamma: float = 0.99, seed: int = 0,
                 dtype: tf.DType = tf.float32, compute: tf.DType | str | None = None,
                 weights_rng: np.random.Generator | None = None) -> None:
        super().__init__()
        self.observation_space, self.action_space = observation_space, action_space
        self.network, self.network_options = network, dict(network_options or {})
        self.dtype, self.compute = dtype, tf.as_dtype(compute or dtype)
        self.info: dict[str, Any] = {}  # what `learn` knows: algorithm, environment, config; saved in the model file
        self.encoder = Encoder(observation_space, pictures=takes_pictures(network))
        mask = self.encoder.normalized
        self.normalize = Normalize(mask.shape if normalize_observations and mask.any() else None, mask=mask,
                                   rewards=normalize_rewards, gamma=reward_gamma)
        self.settings: dict[str, Any] = {
            "network": network, "network_options": self.network_options, "compute": self.compute.name,
            "normalize_observations": normalize_observations, "normalize_rewards": normalize_rewards,
            "reward_gamma": reward_gamma}
        self.weights_rng, self._rng = weights_rng or stream(seed, "weights"), stream(seed, "step")

    def __setattr__(self, name: str, value: Any) -> None:
        """Dicts stay dicts: tf.Module would wrap them, and json knows no wrapped ones."""
        if isinstance(value, dict):
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    @classmethod
    def of(cls, observation_space: gym.Space, action_space: gym.Space, settings: Mapping[str, Any], **more: Any
           ) -> Self:
        """A policy by its settings, from a file or another process: TensorFlow may not run yet, and is set up first."""
        tf_setup.setup(Comm(), tf_setup.threads_for(settings["network"] in SMALL, Comm()))
        return cls(observation_space, action_space, **settings, **more)

    def copy(self) -> Self:
        """Another policy of this kind with the same parameters: a target network, say.

        Not with the rest of its state, as `copy.deepcopy` gives: that is of the environments that it learns in.
        """
        other = self.of(self.observation_space, self.action_space, self.settings, dtype=self.dtype)
        mine, theirs = weights(self), weights(other)
        for path, parameter in mine.items():
            theirs[path].assign(parameter.numpy())
        return other

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled, as on its way to another process, or copied, it is made anew and given its state."""
        make = functools.partial(type(self).of, dtype=self.dtype)
        return (make, (self.observation_space, self.action_space, self.settings),
                {"info": self.info, "state": self.state()})

    def __setstate__(self, given: dict[str, Any]) -> None:
        self.info = given["info"]
        self.restore(given["state"])

    def build(self, size: Any, name: str) -> Any:
        """A network of this policy's kind, for features of that size."""
        return build(self.network, size, rng=self.weights_rng, dtype=self.dtype, compute=self.compute, name=name,
                     options=self.network_options)

    def features(self, obs: Any, out: np.ndarray | None = None, raw: np.ndarray | None = None) -> np.ndarray:
        """Features [N, ...] of a batch of raw observations, normalised, to `out`; their raw vector [N, d] to `raw`."""
        vector = self.encoder.vector(obs)
        if raw is not None and vector is not None:
            raw[...] = vector
        if out is None:
            out = np.empty((self.encoder.batch(obs), *self.encoder.shape), self.encoder.dtype)
        return self.encoder.features(obs, self.normalize.normalize_obs(vector), out)

    def initial_state(self, num_env: int) -> np.ndarray | None:
        """The memory of `num_env` environments before anything was seen: zeros [N, S]; None if not recurrent."""
        return None

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray | None:
        """What `actor` needs to draw actions of the given batch shape."""
        raise NotImplementedError

    def actor(self) -> Actor:
        """A function (features, noise or None for the most probable action, state, firsts) -> Acted."""
        raise NotImplementedError

    def values_and_logp(self, features: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """(values [N], logp [N] or None) of features and actions: what `actor` may leave out."""
        raise NotImplementedError

    def to_env(self, actions: np.ndarray) -> np.ndarray:
        """What the environment is given for the policy's actions [N, ...]."""
        raise NotImplementedError

    def step(self, obs: np.ndarray, state: Any = None, firsts: np.ndarray | None = None,
             deterministic: bool = False) -> tuple[np.ndarray, np.ndarray, Any, np.ndarray | None]:
        """(actions, values, state, logp) for a batch of raw observations [N, ...].

        `state` [N, S] is what the last step returned, None at the start; `firsts` [N] is true where an episode begins
        (by default nowhere, and everywhere at the start). A policy without memory returns the state as it came.
        Actions are as the distribution drew them: give the environment `policy.to_env(actions)`.
        """
        features, acted = self._act_on(obs, state, firsts, deterministic)
        if acted.values is None:
            values, logp = self.values_and_logp(features, acted.actions)
        else:
            values, logp = acted.values, self.logp(acted.heads, acted.actions)
        return acted.actions, values, acted.state if self.recurrent else state, logp

    def predict(self, obs: Any, state: Any = None, firsts: Any = None, deterministic: bool = False
                ) -> tuple[np.ndarray, Any]:
        """(what to give the environment, state) for one raw observation, or a batch of them [N, ...].

        Of one observation it is one action. `state` and `firsts` as in `step`; one bool for one observation. Raises
        UserError for what is not of the observation space (whose type counts, a Box's bounds do not) or not finite, and
        for a state of another batch.
        """
        batch, alone = self.encoder.batched(obs)
        firsts = None if firsts is None else np.atleast_1d(firsts)
        count = self.encoder.batch(batch)
        for name, rows in (("state", state), ("firsts", firsts)):
            if self.recurrent and rows is not None and np.shape(rows)[:1] != (count,):
                raise UserError(f"{name} must be of {counted(count, 'observation')}, not of the shape {np.shape(rows)}")
        features, acted = self._act_on(batch, state, firsts, deterministic)
        numbers = (self.encoder.numbers(features), acted.state)
        if not all(array is None or np.isfinite(array).all() for array in numbers):
            raise UserError("an observation or the state is not finite, and so would be what the policy makes of it")
        actions = self.to_env(acted.actions)
        return actions[0] if alone else actions, acted.state if self.recurrent else state

    def _act_on(self, obs: Any, state: Any, firsts: np.ndarray | None, deterministic: bool
                ) -> tuple[np.ndarray, Acted]:
        features, memory = self.features(obs), ()
        noise = None if deterministic else self.noise(self._rng, (len(features),))
        if self.recurrent:
            state = self.initial_state(len(features)) if state is None else state
            memory = (np.asarray(state, self.dtype.as_numpy_dtype),
                      np.zeros(len(features), bool) if firsts is None else np.asarray(firsts, bool))
        return features, self.actor()(features, noise, *memory)

    def __repr__(self) -> str:
        """What it is, in a line."""
        learned = f" of {self.info['algorithm']} for {self.info['env']}" if self.info else ""
        told = {**self.settings, **self.network_options}
        hidden = {"network", "network_options", "compute", "reward_gamma", "joined"}
        options = "".join(f", {k}={v}" for k, v in told.items() if k not in hidden and v not in (None, False))
        count = sum(int(np.prod(v.shape)) for v in self.trainable_variables)
        return (f"<{self.kind()}{learned}: {brief(self.observation_space)} -> {brief(self.action_space)}, "
                f"network={self.network}{options}, {count:,} parameters>")

    def save(self, path: str) -> None:
        """Writes weights, statistics, spaces and config to one safetensors file; see file_format.write."""
        text, arrays = self.description()
        write(path, text, arrays | self.contents())

    def description(self) -> tuple[str, dict[str, np.ndarray]]:
        """What its file says of it, as JSON, and its spaces' arrays by name. UserError for what no file can hold."""
        return encoded({**self.info, "policy": self.kind(), "settings": self.settings},
                       {name: getattr(self, name) for name in ("observation_space", "action_space")}, self.contents())

    def contents(self) -> dict[str, Held]:
        """What its file holds of it, by name: its weights, and arrays of normalisation statistics."""
        return ({f"weights/{path}": parameter for path, parameter in weights(self).items()}
                | {f"normalize/{name}": array for name, array in self.normalize.statistics().items()})
