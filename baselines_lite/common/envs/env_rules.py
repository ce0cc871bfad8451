"""Gymnasium's rules for an environment: whatever breaks one is told in a sentence, a UserError.

`Checked` holds an environment's class, its first reset and its first step against the rules. Later steps are not, since
that would cost as much as a fast environment does; but each leaves behind what it gave, so that when something fails
over it, `broken_rule` can say why. That numbers are within bounds is no rule here: those of many environments are not.
"""

from __future__ import annotations

import copy
import inspect
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import passive_env_checker

from baselines_lite.common.system.errors import UserError, counted

# Gymnasium's code around an environment: what is raised right there is raised over what the environment gave.
AROUND = (gym.core.__file__, gym.wrappers.common.__file__)


class Checked(gym.Wrapper):
    """An environment whose class, first reset and first step are checked. Raises UserError where a rule is broken.

    It also copies an episode's last observation: an environment may clear its own arrays in the reset that follows.
    """

    def __init__(self, env: gym.Env) -> None:
        check_class(env)
        super().__init__(env)
        self._unchecked = {"reset", "step"}
        self.gave: tuple[str, Any] | None = None  # the method called last, and its result; None: it came to none

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As Gymnasium's."""
        self.gave = None
        result = self.env.reset(seed=seed, options=options)
        self.gave = "reset", result
        self._check_first("reset")
        return result

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """As Gymnasium's."""
        self.gave = None
        result = self.env.step(action)
        self.gave = "step", result
        if self._unchecked:
            self._check_first("step")
        obs, reward, terminated, truncated, info = result
        return (copy.deepcopy(obs), reward, terminated, truncated, info) if terminated or truncated else result

    def _check_first(self, method: str) -> None:
        if method in self._unchecked:
            self._unchecked.remove(method)
            if fault := self.fault():
                raise broken(self.env, fault)

    def fault(self, error: BaseException | None = None) -> str | None:
        """What is wrong with what the last call gave, or what Gymnasium found wrong by raising `error` in it."""
        if self.gave is None:
            return f"{type(error).__name__}: {error}" if error and is_raised_around(error) else None
        method, result = self.gave
        found = (fault_of_reset if method == "reset" else fault_of_step)(result, self.observation_space)
        return found and f"{method}() gave {found}"


class Lent(Checked):
    """An environment that the caller made and keeps: closing it here leaves it open."""

    def close(self) -> None:
        """Nothing."""


def broken(env: gym.Env, fault: str) -> UserError:
    """The error of an environment that breaks a rule."""
    name = env.spec.id if env.spec is not None else type(env.unwrapped).__name__
    return UserError(f"the environment {name} breaks a rule of Gymnasium: {' '.join(fault.split())}")


def broken_rule(envs: Iterable[gym.Env], error: BaseException) -> UserError | None:
    """What to raise in place of `error`, which came out of a reset or step of `envs`: the rule broken, if one is."""
    checked = [found for env in envs if (found := checked_inside(env)) is not None]
    failed = [env for env in checked if env.gave is None] or checked
    return next((broken(env, fault) for env in failed if (fault := env.fault(error))), None)


def checked_inside(env: gym.Env | None) -> Checked | None:
    """The Checked among an environment's wrappers."""
    while isinstance(env, gym.Wrapper) and not isinstance(env, Checked):
        env = env.env
    return env if isinstance(env, Checked) else None


def is_raised_around(error: BaseException) -> bool:
    """Whether Gymnasium's wrappers or its own checker raised an exception, not the environment inside them."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return last.filename == passive_env_checker.__file__ or (last.filename in AROUND and last.name in ("reset", "step"))


def explained(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of a vector environment with `envs` that raises what `broken_rule` says, where it says something."""

    def call(self: Any, *given: Any, **named: Any) -> Any:
        try:
            return method(self, *given, **named)
        except UserError:
            raise
        except Exception as error:
            told = broken_rule(self.envs, error)
            if told is None:
                raise
            raise told from error

    return call


def check_class(env: Any) -> None:
    """Raises UserError unless an object is an environment with spaces whose `reset` takes what it is given."""
    if not isinstance(env, gym.Env):
        raise UserError(f"an environment must be a gymnasium.Env, not {kind_of(env)}")
    if fault := fault_of_class(env):
        raise broken(env, fault)


def fault_of_class(env: gym.Env) -> str | None:
    """What is wrong with an environment's spaces or the signature of its `reset`; None: nothing."""
    for name in ("observation_space", "action_space"):
        space = getattr(env, name, None)
        if not isinstance(space, gym.Space):
            return f"its {name} is {kind_of(space)}, where a gymnasium.Space is expected"
    layer = env
    while layer is not None:
        for name in ("seed", "options"):
            if not takes(layer.reset, name):
                return (f"{type(layer).__name__}.reset does not take {name}, where reset(*, seed=None, options=None) "
                        "is expected")
        layer = layer.env if isinstance(layer, gym.Wrapper) else None
    return None


def takes(function: Callable[..., Any], keyword: str) -> bool:
    """Whether a function takes a keyword, as far as it tells."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # compiled code
        return True
    return keyword in parameters or any(p.kind == p.VAR_KEYWORD for p in parameters.values())


def fault_of_reset(result: Any, space: gym.Space) -> str | None:
    """What is wrong with what `reset` gave, in words that follow "gave"; None: nothing."""
    if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], Mapping)):
        old = not isinstance(result, tuple) and misfit(result, space) is None
        return (f"{kind_of(result)}, where a tuple (observation, info) is expected, info a dict"
                f"{', not the old observation alone' * old}")
    return misfit(result[0], space)


def fault_of_step(result: Any, space: gym.Space) -> str | None:
    """What is wrong with what `step` gave, in words that follow "gave"; None: nothing."""
    if not (isinstance(result, tuple) and len(result) == 5):
        old = isinstance(result, tuple) and len(result) == 4
        return (f"{kind_of(result)}, where a tuple (observation, reward, terminated, truncated, info) is expected"
                f"{', not the old (observation, reward, done, info)' * old}")
    obs, reward, terminated, truncated, info = result
    if found := misfit(obs, space):
        return found
    if not is_number(reward, "biuf"):
        return f"{kind_of(reward)} as the reward, where a number is expected"
    for name, flag in (("terminated", terminated), ("truncated", truncated)):
        if not is_number(flag, "b"):
            return f"{kind_of(flag)} as {name}, where True or False is expected"
    return None if isinstance(info, Mapping) else f"{kind_of(info)} as info, where a dict is expected"


def misfit(obs: Any, space: gym.Space, name: str = "the observation") -> str | None:
    """What an observation has that its space has not: other keys, another shape or type, a number that is no index."""
    if isinstance(space, gym.spaces.Dict | gym.spaces.Tuple):
        ordered = isinstance(space, gym.spaces.Tuple)
        parts = dict(enumerate(space.spaces)) if ordered else space.spaces
        if not isinstance(obs, tuple | list if ordered else Mapping):
            return f"{kind_of(obs)} as {name}, where {'a tuple' if ordered else 'a dict'} is expected"
        found = dict(enumerate(obs)) if ordered else obs
        if found.keys() != parts.keys():
            return f"{name} with {list(found)}, where {list(parts)} are expected"
        return next(filter(None, (misfit(found[key], part, f"{name}[{key!r}]") for key, part in parts.items())), None)
    if space.shape is None:
        return None
    array = array_of(obs)
    if array.shape != space.shape or not np.can_cast(array.dtype, space.dtype, "same_kind"):
        return f"{kind_of(obs)} as {name}, where {space.dtype} of shape {space.shape} is expected"
    indices = isinstance(space, gym.spaces.Discrete | gym.spaces.MultiDiscrete)
    if indices and not space.contains(array.astype(space.dtype)):
        return f"{obs} as {name}, which {space} does not contain"
    return None


def array_of(value: Any) -> np.ndarray:
    """A value as an array; of objects if it is none."""
    try:
        return np.asarray(value)
    except ValueError:  # lists of unequal lengths
        return np.empty((), object)


def is_number(value: Any, kinds: str) -> bool:
    """Whether a value is one number of these kinds of NumPy's."""
    array = array_of(value)
    return array.ndim == 0 and array.dtype.kind in kinds


def kind_of(value: Any) -> str:
    """What sort of thing a value is, in words."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} of shape {value.shape}"
    if isinstance(value, tuple | list | dict):
        return f"a {type(value).__name__} of {counted(len(value), 'value')}"
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    return f"a {type(value).__name__}"
