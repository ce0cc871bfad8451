"""The format of model files: safetensors with weights and statistics, and JSON metadata. Never pickle.

Weights are named by the attributes that lead to them, `pi_net/layers/0/w`. A file may come from a stranger: whatever is
wrong with one is told by one UserError, and what it says about sizes is held against the tensors that it brings before
anything is made of that size.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import tensorflow as tf
from safetensors import safe_open
from safetensors.numpy import save

from baselines_lite.common.networks.observations import is_picture
from baselines_lite.common.networks.parameters import Parameter
from baselines_lite.common.system.errors import UserError

FORMAT = 4
HEADER = 1 << 20  # bytes, at most, of a file's header: metadata, and tensors' names and shapes
ROOM = 32 << 20  # bytes that spaces may take beside as many as the file has


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
    path = os.path.expanduser(path)
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


def space_to_json(space: gym.Space, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """A space as JSON-ready values: those that policies support, nested as they are. Puts arrays into `arrays`.

    Raises UserError for a Dict with keys that would come back as something else.
    """
    match space:
        case gym.spaces.Discrete():
            dtype = {} if space.dtype == np.int64 else {"dtype": space.dtype.name}  # which was not always written
            return {"kind": "Discrete", "n": int(space.n), "start": int(space.start), **dtype}
        case gym.spaces.MultiDiscrete():
            return {"kind": "MultiDiscrete", "nvec": array_to_json(space.nvec, arrays),
                    "start": array_to_json(space.start, arrays)}
        case gym.spaces.MultiBinary():
            return {"kind": "MultiBinary", "n": space.n if isinstance(space.n, int) else list(space.shape)}
        case gym.spaces.Dict():
            for key in space.spaces:
                if not isinstance(key, str | int | float | np.number):
                    raise UserError(f"this policy cannot be saved: its space has the key {key!r}, which is neither "
                                    "text nor a number")
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
            dtype = {"dtype": values["dtype"]} if "dtype" in values else {}  # of which Gymnasium 1.2 knows nothing
            return gym.spaces.Discrete(values["n"], start=whole(values["start"], -2**63), **dtype)
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


Held = Parameter | tf.Variable | np.ndarray  # what a file holds of a policy: it has a shape and a dtype


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


def encoded(metadata: dict[str, Any], spaces: dict[str, gym.Space], names: Iterable[str]
            ) -> tuple[str, dict[str, np.ndarray]]:
    """A policy's metadata as JSON with its spaces, and the arrays of these by name; `names` are its other tensors'.

    Raises UserError for what no file can hold.
    """
    arrays: dict[str, np.ndarray] = {}
    described = {name: space_to_json(space, arrays) for name, space in spaces.items()}
    try:
        text = json.dumps({**metadata, "format": FORMAT, **described}, default=plain)
    except (TypeError, ValueError) as error:
        raise UserError(f"this policy cannot be saved: {error}") from None
    if len(json.dumps(text)) + sum(len(name) + 150 for name in (*names, *arrays)) > HEADER:
        raise UserError(f"this policy cannot be saved: its settings, spaces and variables' names take more than "
                        f"{HEADER:,} bytes")
    return text, arrays


def write(path: str | Path, text: str, tensors: Mapping[str, Held]) -> None:
    """Writes a model file, replacing what is there. Raises UserError where that is not possible.

    It is written beside its place and moved into it, so that an interrupted save never leaves half a file.
    """
    data = save({name: np.asarray(value, order="C") for name, value in tensors.items()},
                metadata={"baselines_lite": text})
    path = Path(path).expanduser()
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
