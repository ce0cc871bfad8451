"""The state of environments as plain data, so that a run which resumes continues exactly where it was.

It is kept whole or not at all: `unknown_part` names the first class that it is not known how to keep. Known are
Gymnasium's own environments and wrappers that this file lists and ours, by their exact class, and whatever offers
`get_state()` and `set_state(state)` with plain data: a subclass or a wrapper of somebody's own may count in silence.

Of a known class all attributes are kept but those that NOT_KEPT names. What is neither makes the class unknown, so that
a new release of Gymnasium cannot leave anything out unseen. A restored state sets attributes that the environment has
already, to data; what is read from a file runs nothing.
"""

from __future__ import annotations

import inspect
import re
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import SyncVectorEnv, VectorWrapper
from gymnasium.wrappers.utils import RunningMeanStd

from baselines_lite.common.system.errors import UserError

KNOWN = re.compile(
    r"gymnasium\.envs\.(classic_control|toy_text|mujoco)\..*|gymnasium\.vector\.sync_vector_env\.SyncVectorEnv"
    r"|gymnasium\.wrappers\.common\.(OrderEnforcing|PassiveEnvChecker|RecordEpisodeStatistics|TimeLimit)"
    r"|gymnasium\.wrappers\.stateful_action\.(RepeatAction|StickyAction)"
    r"|gymnasium\.wrappers\.stateful_observation\.(Delay|FrameStack|MaxAndSkip|Normalize|TimeAware)Observation"
    r"|gymnasium\.wrappers\.(stateful_reward\.NormalizeReward|transform_reward\.ClipReward)"
    r"|gymnasium\.wrappers\.transform_action\.(Clip|Discretize|Rescale)Action"
    r"|gymnasium\.wrappers\.transform_observation\."
    r"(Discretize|Dtype|Filter|Flatten|Grayscale|Rescale|Reshape|Resize)Observation"
    r"|gymnasium\.wrappers\.vector\.(common\.RecordEpisodeStatistics|rendering\.RecordVideo"
    r"|stateful_observation\.NormalizeObservation|stateful_reward\.NormalizeReward)"
    r"|baselines_lite\.common\.envs\.(env_rules|make|toy_envs|vec_env|workers)\..*")
NOT_KEPT = re.compile(
    r"envs?|num_envs|env_fns|(_cached)?_?spec|_?metadata|_saved_kwargs|_ezpickle_\w+|_?autoreset_mode|observation_mode"
    r"|fullpath|model|P|desc|dtype|\w*func"  # that, and how it was made, are as they were
    r"|_env_obs|_observations"  # each step writes them anew
    r"|mujoco_renderer|render_\w+|screens?|surf|clock|window|window_surface|\w+_imgs?|dealer_top_\w+"  # for drawing
    r"|\w+_trigger|record\w+|_?video_\w+"
    r"|gave|_unchecked|_previous_data"  # for the checks of what an environment gives
    r"|closed|episode_start_times?")  # this process's clock


def unknown_part(env: gym.Env | gym.vector.VectorEnv) -> str | None:
    """The name of the first class, from the outside, whose state cannot be kept; None if that of all can."""
    for layer in layers(env):
        if hasattr(type(layer), "unknown_part"):  # it knows better
            return layer.unknown_part()
        if offers_state(layer):
            continue
        try:
            known = KNOWN.fullmatch(class_of(layer)) and attributes(layer)
        except TypeError:
            known = None
        if known is None:
            return type(layer).__name__
    return next(filter(None, map(unknown_part, inner_envs(layer))), None)


def env_state(env: gym.Env | gym.vector.VectorEnv) -> dict[str, Any]:
    """The state of an environment or vector environment without an unknown part, after its first reset."""
    *_, base = parts = list(layers(env))
    return {"layers": [[class_of(layer), layer_state(layer)] for layer in parts],
            "envs": [env_state(inner) for inner in inner_envs(base)]}


def restore_env(env: gym.Env | gym.vector.VectorEnv, state: Mapping[str, Any]) -> None:
    """Lets an environment, made as the one that gave the state and reset once, continue as that one does.

    Raises ValueError for what cannot be its state; the environment is then to be thrown away.
    """
    *_, base = parts = list(layers(env))
    try:
        if [name for name, _ in state["layers"]] != [class_of(layer) for layer in parts]:
            raise ValueError(f"this is the state of other wrappers than those of {env}")
        for layer, (_, told) in zip(parts, state["layers"], strict=True):
            restore_layer(layer, told)
        for inner, told in zip(inner_envs(base), state["envs"], strict=True):
            restore_env(inner, told)
    except (AttributeError, LookupError, OverflowError, RecursionError, TypeError) as error:
        raise ValueError(f"this is not the state of {env}: {type(error).__name__}: {error}") from error


def layers(env: gym.Env | gym.vector.VectorEnv) -> Iterator[Any]:
    """An environment's wrappers, from the outside, and itself."""
    while isinstance(env, gym.Wrapper | VectorWrapper):
        yield env
        env = env.env
    yield env


def inner_envs(base: Any) -> list[gym.Env]:
    """The environments that a vector environment in this process steps."""
    return base.envs if isinstance(base, SyncVectorEnv) and not offers_state(base) else []


def class_of(layer: Any) -> str:
    """A class's whole name."""
    return f"{type(layer).__module__}.{type(layer).__qualname__}"


def offers_state(layer: Any) -> bool:
    """Whether a class itself has `get_state()` and `set_state(state)`. MuJoCo's environments have another set_state."""
    try:
        inspect.signature(type(layer).get_state).bind(layer)
        inspect.signature(type(layer).set_state).bind(layer, {})
    except (AttributeError, TypeError, ValueError):
        return False
    return True


def layer_state(layer: Any) -> Any:
    """The state of one environment or wrapper, without that of what is inside it."""
    if not offers_state(layer):
        return attributes(layer)
    state = layer.get_state()
    try:
        return kept(state)
    except TypeError as error:
        raise UserError(f"{type(layer).__name__}.get_state() must give plain data: {error}") from error


def restore_layer(layer: Any, state: Any) -> None:
    """The inverse of `layer_state`."""
    if offers_state(layer):
        layer.set_state(told(state))
    else:
        set_attributes(layer, state)


def attributes(owner: Any) -> dict[str, Any]:
    """What an object of a known class consists of. Raises TypeError where something of that is no plain data."""
    return {name: kept(value) for name, value in vars(owner).items() if not NOT_KEPT.fullmatch(name)}


def set_attributes(owner: Any, state: Mapping[str, Any]) -> None:
    """The inverse of `attributes`. Raises an exception for other names or other sorts of values than there are."""
    names = [name for name in vars(owner) if not NOT_KEPT.fullmatch(name)]
    if state.keys() != set(names):
        raise ValueError(f"{type(owner).__name__} consists of {sorted(names)}, not of {sorted(state)}")
    for name in names:
        setattr(owner, name, restored(getattr(owner, name), state[name]))


def kept(value: Any) -> Any:
    """A value as plain data: a list begins with its kind, a NumPy scalar is an array without dimensions."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biuf":
        return np.array(value)
    if type(value) in (list, tuple):
        return [type(value).__name__, *map(kept, value)]
    if type(value) is deque:
        return ["deque", value.maxlen, *map(kept, value)]
    if isinstance(value, np.random.Generator) and type(value.bit_generator) is np.random.PCG64:
        return ["generator", value.bit_generator.state]
    if isinstance(value, gym.Space):  # from which an environment may draw
        return [kept(vars(space)["_np_random"]) for space in spaces_in(value)]
    if isinstance(value, Mapping) and all(type(key) is str for key in value):
        return {key: kept(part) for key, part in value.items()}
    if isinstance(value, RunningMeanStd):
        return attributes(value)
    if is_mujoco_data(value):
        return {name: np.array(getattr(value, name)) for name in simulation(value)}
    raise TypeError(f"a {type(value).__name__} is none")


def told(data: Any) -> Any:
    """The value that `kept` made into plain data; of those that need none that is there already."""
    if data is None or type(data) in (bool, int, float, str):
        return data
    if isinstance(data, np.ndarray | np.generic) and data.dtype.kind in "biuf":  # without dimensions: either
        return data.copy() if data.ndim else data[()]
    if isinstance(data, Mapping):
        return {key: told(part) for key, part in data.items()}
    kind, *parts = data
    if kind == "generator":
        generator = np.random.Generator(np.random.PCG64(0))
        generator.bit_generator.state, = parts
        return generator
    if kind == "deque":
        maxlen, *parts = parts
        return deque(map(told, parts), maxlen)
    return {"list": list, "tuple": tuple}[kind](map(told, parts))


def restored(old: Any, data: Any) -> Any:
    """What an attribute becomes by what `kept` made of one like it: itself where it can be changed in place."""
    if isinstance(old, gym.Space):
        for space, part in zip(spaces_in(old), data, strict=True):
            space._np_random = restored(vars(space)["_np_random"], part)
    elif isinstance(old, RunningMeanStd):
        set_attributes(old, data)
    elif is_mujoco_data(old):
        if data.keys() != set(simulation(old)):
            raise ValueError("this is the state of another simulation")
        for name in simulation(old):
            setattr(old, name, restored(np.array(getattr(old, name)), data[name]))
    else:
        new = told(data)
        if not alike(old, new):
            raise ValueError(f"{new!r} cannot follow upon {old!r}"[:200])
        return new
    return old


def alike(old: Any, new: Any) -> bool:
    """Whether an attribute may change from one value to another: None to anything, a tuple to an array like it."""
    if old is None or new is None:
        return True
    if isinstance(old, np.ndarray) or isinstance(new, np.ndarray):
        return np.shape(old) == np.shape(new) and np.asarray(old).dtype.kind == np.asarray(new).dtype.kind
    number = bool | int | float | np.generic
    return type(old) is type(new) or (isinstance(old, number) and isinstance(new, number))


def spaces_in(value: Any) -> Iterator[gym.Space]:
    """A space and the spaces that it consists of."""
    if isinstance(value, gym.Space):
        yield value
        value = vars(value)
    for part in value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple | list) else ():
        yield from spaces_in(part)


def is_mujoco_data(value: Any) -> bool:
    """Whether a value is MuJoCo's MjData, without importing it."""
    return type(value).__module__.startswith("mujoco.") and type(value).__name__ == "MjData"


def simulation(data: Any) -> list[str]:
    """The names of MjData's numbers whose size the model determines; what else there is each step computes from them.

    Integers are not among them: they are indices into memory, which no file may set.
    """
    empty, properties = type(data)(data.model), inspect.getmembers(type(data), inspect.isdatadescriptor)
    arrays = {name: getattr(empty, name) for name, accessor in properties if getattr(accessor, "fset", None)}
    return ["time", *(name for name, array in arrays.items()
                      if isinstance(array, np.ndarray) and array.dtype == np.float64 and array.size)]
