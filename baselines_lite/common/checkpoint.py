"""One file per policy: safetensors with weights and statistics, and JSON metadata. Never pickle.

The metadata hold the algorithm, its config, the network and the spaces, so that the file alone gives back the policy.
Weights are named by the attributes that lead to them, `pi_net/layers/0/w`. Files are written beside their place and
moved into it, so that an interrupted save never leaves half a file.

A file may come from a stranger. Whatever is wrong with one is told by one UserError; nothing is imported that the
caller has neither imported nor named; and what it says about sizes is held against the tensors that it brings before
anything is made of that size, so that loading takes at most twice the file's size and 64 MiB. (Only what the code of a
network of one's own allocates by itself, beside layers of ours, is up to that code.)
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import json
import math
import os
import secrets
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import tensorflow as tf
from safetensors import safe_open
from safetensors.numpy import save

from baselines_lite.common import networks, tf_setup
from baselines_lite.common.actor_q import ActorQ  # noqa: F401  (a kind of Policy)
from baselines_lite.common.config import AtariOptions, check, check_network_options, convert, override, to_dict
from baselines_lite.common.deterministic_policy import DeterministicPolicy  # noqa: F401  (a kind of Policy)
from baselines_lite.common.errors import UserError
from baselines_lite.common.mpi import Comm
from baselines_lite.common.observations import is_picture
from baselines_lite.common.parameters import Parameter, weights
from baselines_lite.common.policy import Policy
from baselines_lite.common.q_policy import QPolicy  # noqa: F401  (a kind of Policy)

FORMAT = 4
HEADER = 1 << 20  # bytes, at most, of a file's header: metadata, and tensors' names and shapes
ROOM = 32 << 20  # bytes that spaces may take beside as many as the file has
COMPUTE = ("float32", "bfloat16")  # what a policy of float32 weights may compute in
INFO = {"algorithm": str, "env": str, "config": dict, "atari": dict | None, "versions": dict}  # see Policy.info
FREE = ("compute", "reward_gamma", "epsilon", "joined")  # settings that may change where training starts from a file


class Fault(Exception):
    """What is wrong with a model file, as it follows the words "the model file 'x' "."""


@dataclasses.dataclass
class ModelFile:
    """An open model file: its metadata, its tensors' shapes by name, and `read`, which gives a tensor by name."""

    metadata: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    read: Callable[[str], np.ndarray]
    room: int

    def take(self, nbytes: int) -> None:
        """To be called before a space is made that takes so many bytes. Raises Fault where they are too many."""
        self.room -= nbytes
        if self.room < 0:
            raise Fault("does not fit: its spaces are far larger than its weights")


# -------------------------------------------------------------------------------------------------- saving, loading

def save_policy(path: str | Path, policy: Policy) -> None:
    """Writes the policy to `path`, replacing what is there. Raises UserError where that is not possible."""
    text, arrays = describe(policy)
    tensors = {name: np.asarray(value, order="C") for name, value in (arrays | contents(policy)).items()}
    data = save(tensors, metadata={"baselines_lite": text})
    path = Path(path)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")  # of its own: several ranks may save at once
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(data)
        os.replace(part, path)
    except OSError as error:
        raise UserError(f"cannot write the model file {str(path)!r}: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def load_policy(path: str | Path, network: str | None = None) -> Policy:
    """The policy in a file that `save_policy` wrote. Raises UserError if the file is missing, damaged or foreign.

    `network`: the file's network where that is a `module:function` whose module has not been imported yet.
    """
    with opened(path) as file:
        kind = Policy.KINDS.get(str(file.metadata["policy"]))
        if kind is None:
            raise Fault(f"holds a policy of the class {file.metadata['policy']}, which is not loaded: import its "
                        f"module first, or on the command line give --alg={file.metadata.get('algorithm')}")
        settings = checked_settings(kind, file.metadata["settings"], network)
        spaces = [space_from_json(file.metadata[name], file) for name in ("observation_space", "action_space")]
        tf_setup.setup(Comm(), tf_setup.threads_for(settings["network"], Comm()))
        sizes = [math.prod(shape) for name, shape in file.shapes.items() if name.startswith("weights/")]
        policy = kind(*spaces, **settings, weights_rng=networks.Blank(sizes))
        if policy.settings.keys() != settings.keys():
            raise Fault(f"is damaged: its settings are {', '.join(settings)}, not {', '.join(policy.settings)}")
        policy.info = checked_info(file.metadata, policy)
        put_into(policy, file)
    return policy


def load_into(policy: Policy, path: str | Path) -> None:
    """Gives a policy the weights and statistics of a file. Raises UserError if they are for another kind of policy."""
    mine = json.loads(describe(policy)[0])
    # One's own algorithm may start from what the one that it was copied from has trained.
    own = [] if "." in str(mine.get("algorithm")) else ["algorithm"]
    with opened(path) as file:
        theirs = {**file.metadata, **file.metadata["settings"]}
        for key in (*own, "policy", *mine["settings"]):
            value = {**mine, **mine["settings"]}.get(key)
            if key not in FREE and theirs.get(key) != value:
                raise Fault(f"does not fit: its {key} is {theirs.get(key)}, not {value}")
        for key in ("observation_space", "action_space"):
            space = space_from_json(theirs[key], file)
            if space != getattr(policy, key):
                raise Fault(f"does not fit: its {key} is {space}, not {getattr(policy, key)}")
        put_into(policy, file)


def describe(policy: Policy) -> tuple[str, dict[str, np.ndarray]]:
    """A policy's metadata as JSON, and the arrays of its spaces by name. Raises UserError for what no file can hold."""
    arrays: dict[str, np.ndarray] = {}
    metadata = {
        **policy.info,
        "format": FORMAT,
        "policy": policy.kind(),
        "settings": policy.settings,
        "observation_space": space_to_json(policy.observation_space, arrays),
        "action_space": space_to_json(policy.action_space, arrays),
    }
    try:
        text = json.dumps(metadata, default=plain)
    except (TypeError, ValueError) as error:
        raise UserError(f"this policy cannot be saved: {error}") from None
    if len(json.dumps(text)) + sum(len(name) + 150 for name in (*contents(policy), *arrays)) > HEADER:
        raise UserError(f"this policy cannot be saved: its settings, spaces and variables' names take more than "
                        f"{HEADER:,} bytes")
    return text, arrays


def plain(value: Any) -> Any:
    """A mapping (tf.Module wraps each dict that is set on it) or a NumPy scalar as json knows it."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r} is neither text nor a number, a list or a dict of them")


@contextlib.contextmanager
def opened(path: str | Path) -> Iterator[ModelFile]:
    """A model file, to be read within the block. Whatever goes wrong in there becomes one UserError, a sentence."""
    if not os.path.isfile(path):
        raise UserError(f"there is no model file {str(path)!r}")
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
        if length > HEADER:
            raise Fault(f"is damaged or no model file: its header would take {length:,} bytes")
        with safe_open(str(path), framework="numpy", backend="pread") as file:
            text = (file.metadata() or {}).get("baselines_lite")
            if text is None:
                raise Fault("was not written by baselines_lite")
            metadata = json.loads(text, object_pairs_hook=unique)
            if not isinstance(metadata, dict):
                raise Fault("is damaged: its metadata are no object")
            if metadata.get("format") != FORMAT:
                raise Fault(f"has format {metadata.get('format')}, but this version reads only {FORMAT}: load it with "
                            "the version that wrote it, or train the policy again")
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            yield ModelFile(metadata, shapes, file.get_tensor, ROOM + os.path.getsize(path))
    except Exception as error:
        told = isinstance(error, Fault | UserError)
        what = (f"{error}" if isinstance(error, Fault) else f"cannot be used: {error}" if told else
                f"is damaged or no model file: {type(error).__name__}: {error}")
        what = " ".join(what.split())
        raise UserError(f"the model file {str(path)!r} {what[:500]}{' ...' * (len(what) > 500)}"
                        ) from None if told else error


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object's pairs as a dict. Raises Fault for a name that occurs twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Fault("is damaged: a name occurs twice in its metadata")
    return found


# ----------------------------------------------------------------------------------------------------- what it says

def checked_settings(kind: type[Policy], settings: dict[str, Any], network: str | None) -> dict[str, Any]:
    """A file's settings for a kind of policy, as the types that its constructors name. See load_policy."""
    kinds = types_of_settings(kind)
    found = {name: convert(name, kinds[name], value) if name in kinds else value for name, value in settings.items()}
    for name, value in found.items():
        check(name, value, {})
    if found["compute"] not in COMPUTE:
        raise Fault(f"does not fit: it computes in {found['compute']}")
    found["network"] = named_network(found["network"], network)
    found["network_options"] = check_network_options(found["network"], settings["network_options"], set())
    return found


@functools.cache
def types_of_settings(kind: type[Policy]) -> dict[str, Any]:
    """The types that a kind of policy's constructors name, of settings that are a number, a text, or that or none."""
    hints: dict[str, Any] = {}
    for cls in reversed(kind.__mro__):
        if issubclass(cls, Policy) and "__init__" in vars(cls):
            with contextlib.suppress(NameError):  # of a module that imports for its annotations only
                hints |= typing.get_type_hints(cls.__init__)
    simple: dict[str, Any] = {}
    for name, hint in hints.items():
        kinds = set(typing.get_args(hint)) if typing.get_origin(hint) in (types.UnionType, typing.Union) else {hint}
        if len(kinds - {type(None)}) == 1 and kinds <= {bool, int, float, str, type(None)}:
            simple[name] = hint
    return simple


def named_network(network: str, given: str | None) -> str:
    """A file's network, or the one that the caller has given in its place; see load_policy.

    A module that merely happens to be imported brings many functions that are no networks: unless the caller gives its
    name, a network has to take what networks are given.
    """
    if given is not None:
        if given != network and not (":" in given and ":" in network):
            raise Fault(f"has the network {network}, not {given}")
        return given
    module, colon, function = network.partition(":")
    if colon and not is_builder(vars(sys.modules.get(module, object)).get(function)):  # getattr might import, too
        raise Fault(f"has the network {network}, from a module that nobody has imported; if you trust it, give "
                    f"--network={network}, or in Python load(path, network={network!r})")
    return network


def is_builder(function: Any) -> bool:
    """Whether a function's parameters are those of a network; see networks.py."""
    try:
        return {"rng", "dtype", "name"} <= inspect.signature(function).parameters.keys()
    except (TypeError, ValueError):
        return False


def checked_info(metadata: dict[str, Any], policy: Policy) -> dict[str, Any]:
    """What a file says of the policy's training."""
    info = {name: metadata[name] for name in INFO if name in metadata}
    for name, value in info.items():
        if not isinstance(value, INFO[name]):
            raise Fault(f"is damaged: its {name} is {value}")
    if info.get("atari") is not None:
        info["atari"] = to_dict(override(AtariOptions(), info["atari"]))
        if policy.observation_space.shape[:1] != (info["atari"]["frame_stack"],):
            raise Fault(f"is damaged: its observations do not show {info['atari']['frame_stack']} frames")
    return info


# ----------------------------------------------------------------------------------------------------- what it holds

Held = Parameter | tf.Variable | np.ndarray  # all have a shape and a dtype, and np.asarray reads them


def contents(policy: Policy) -> dict[str, Held]:
    """What a policy's file holds of it, by name: its weights, and arrays of normalisation statistics."""
    return ({f"weights/{path}": variable for path, variable in weights(policy).items()}
            | {f"normalize/{name}": array for name, array in policy.normalize.state().items()})


def put_into(policy: Policy, file: ModelFile) -> None:
    """Puts a file's tensors into a policy. Raises Fault where they do not fit or are no numbers; nothing has changed
    then.
    """
    mine = contents(policy)
    theirs = {name: shape for name, shape in file.shapes.items() if not name.startswith("spaces/")}
    for name in sorted(mine.keys() | theirs.keys()):
        own = tuple(mine[name].shape) if name in mine else None
        if theirs.get(name) != own:
            raise Fault(f"does not fit: its {name} is {described(theirs.get(name))}, not {described(own)}")
    for name, own in mine.items():
        check_tensor(name, file.read(name), own)
    statistics = {name: file.read(name) for name in mine if name.startswith("normalize/")}
    policy.normalize.load_state({name.removeprefix("normalize/"): array for name, array in statistics.items()})
    for name, own in mine.items():
        if name.startswith("weights/"):
            own.assign(tf.raw_ops.Identity(input=file.read(name)))  # assigning an array would copy it twice


def described(shape: tuple[int, ...] | None) -> str:
    """A tensor's shape in words."""
    return "missing" if shape is None else f"of shape {list(shape)}"


def is_sound(policy: Policy) -> bool:
    """Whether a file of the policy could be loaded again: its parameters and statistics are finite."""
    try:
        for name, own in contents(policy).items():
            check_tensor(name, np.asarray(own), own)
    except Fault:
        return False
    return True


def check_tensor(name: str, tensor: np.ndarray, own: Held) -> None:
    """Raises Fault unless a tensor has the type of the policy's own, and values that it can have."""
    dtype = tf.as_dtype(own.dtype).as_numpy_dtype
    if tensor.dtype != dtype:
        raise Fault(f"does not fit: its {name} is {tensor.dtype}, not {np.dtype(dtype)}")
    if not tensor.size:
        return
    ends = np.array([tensor.min(), tensor.max()], np.float64)  # NaN if one element is; takes no memory
    finite = name.startswith("normalize/") or own.trainable  # what is not trained may be a bound, say
    if np.isnan(ends).any() or (finite and not np.isfinite(ends).all()):
        raise Fault(f"is damaged: its {name} is not finite")
    statistic = name.rpartition("_")[2] if name.startswith("normalize/") else ""
    if (statistic in ("count", "m2") and ends[0] < 0) or (statistic == "count" and 0 < ends[0] < 1):
        raise Fault(f"is damaged: its {name} is {ends[0]:g}")


# ------------------------------------------------------------------------------------------------------------ spaces

def space_to_json(space: gym.Space, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """A space as JSON-ready values: those that policies support, nested as they are. Puts arrays into `arrays`."""
    match space:
        case gym.spaces.Discrete():
            return {"kind": "Discrete", "n": int(space.n), "start": int(space.start)}
        case gym.spaces.MultiDiscrete():
            return {"kind": "MultiDiscrete", "nvec": array_to_json(space.nvec, arrays),
                    "start": array_to_json(space.start, arrays)}
        case gym.spaces.MultiBinary():
            return {"kind": "MultiBinary", "n": space.n if isinstance(space.n, int) else list(space.shape)}
        case gym.spaces.Dict():
            return {"kind": "Dict", "spaces": [[key, space_to_json(inner, arrays)]
                                               for key, inner in space.spaces.items()]}
        case gym.spaces.Tuple():
            return {"kind": "Tuple", "spaces": [space_to_json(inner, arrays) for inner in space.spaces]}
    return {"kind": "Box", "low": array_to_json(space.low, arrays), "high": array_to_json(space.high, arrays)}


def array_to_json(array: np.ndarray, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """An array of equal numbers, such as a picture's bounds, as JSON; another goes into `arrays` under a new name."""
    if array.size and (array == array.flat[0]).all():
        number = array.flat[0].item()
        return {"shape": list(array.shape), "dtype": array.dtype.name,
                "value": number if math.isfinite(number) else str(number)}
    name = f"spaces/{len(arrays)}"
    arrays[name] = array
    return {"tensor": name}


def space_from_json(values: dict[str, Any], file: ModelFile) -> gym.Space:
    """The space that `space_to_json` described. Raises an exception for anything else, and for one that is too large.

    What is charged for it are the bytes that the space takes, and the features of its observations.
    """
    match values["kind"]:
        case "Discrete":
            file.take(16 * whole(values["n"]))
            return gym.spaces.Discrete(values["n"], start=whole(values["start"], -2**63))
        case "MultiDiscrete":
            nvec, start = (array_from_json(values[name], file) for name in ("nvec", "start"))
            file.take(16 * sum(map(whole, nvec.ravel().tolist())))
            return gym.spaces.MultiDiscrete(nvec, nvec.dtype, start=start)
        case "MultiBinary":
            shape = values["n"] if isinstance(values["n"], list) else [values["n"]]
            file.take(16 * math.prod(map(whole, shape)))
            return gym.spaces.MultiBinary(values["n"])
        case "Dict":
            return gym.spaces.Dict([(key, space_from_json(inner, file)) for key, inner in values["spaces"]])
        case "Tuple":
            return gym.spaces.Tuple([space_from_json(inner, file) for inner in values["spaces"]])
        case "Box":
            low, high = (array_from_json(values[name], file) for name in ("low", "high"))
            if low.dtype != high.dtype:
                raise Fault(f"is damaged: its space is bounded by {low.dtype} and {high.dtype}")
            space = gym.spaces.Box(low, high, dtype=low.dtype.type)
            file.take(0 if is_picture(space) else 16 * low.size)
            return space
    raise Fault(f"is damaged: it has an unknown kind of space, {values['kind']}")


def array_from_json(values: dict[str, Any], file: ModelFile) -> np.ndarray:
    """The array that `array_to_json` described; see space_from_json."""
    if "tensor" in values:
        array = file.read(values["tensor"])
        file.take(array.nbytes + 2 * array.size)
        return array
    shape, dtype, number = [whole(n) for n in values["shape"]], np.dtype(values["dtype"]), values["value"]
    if dtype.kind not in "biuf" or not (isinstance(number, int | float) or number in ("inf", "-inf")):
        raise Fault(f"is damaged: its space has bounds {number} of type {dtype}")
    file.take(math.prod(shape) * (2 * dtype.itemsize + 2))
    with np.errstate(over="raise"):
        return np.full(shape, float(number) if isinstance(number, str) else number, dtype)


def whole(number: Any, low: int = 0) -> int:
    """The number itself. Raises Fault unless it is a whole number in JSON, from `low` to the largest of NumPy's."""
    if type(number) is not int or not low <= number < 2**63:
        raise Fault(f"is damaged: its space has a size of {number}")
    return number
