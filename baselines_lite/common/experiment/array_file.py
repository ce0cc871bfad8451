"""Plain data in a safetensors file: arrays as its tensors, the rest as JSON in its metadata. Never pickle."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

KEY = "baselines_lite"
HEADER = 64 << 20  # bytes, at most, of a file's header


def write(path: Path, data: Any) -> dict[str, Any]:
    """Writes plain data (see state.py) to a new file, down to the disk; its size and checksum. Raises OSError."""
    arrays: dict[str, np.ndarray] = {}
    text = json.dumps(_without_arrays(data, (), arrays))
    save_file({name: np.require(array, requirements="C") for name, array in arrays.items()}, path, {KEY: text})
    with open(path, "r+b") as file:  # Windows flushes only what may be written
        os.fsync(file.fileno())
    return seal(path)


def seal(path: Path) -> dict[str, Any]:
    """A file's size in bytes and its checksum."""
    with open(path, "rb") as file:
        return {"bytes": os.fstat(file.fileno()).st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def read(path: Path) -> Any:
    """What `write` wrote. Raises an exception for anything else; runs nothing."""
    with open(path, "rb") as file:
        if int.from_bytes(file.read(8), "little") > HEADER:
            raise ValueError("its header is too long")
    with safe_open(str(path), framework="numpy", backend="pread") as file:
        return _with_arrays(json.loads(file.metadata()[KEY]), file.get_tensor)


def _without_arrays(data: Any, path: tuple[str, ...], arrays: dict[str, np.ndarray]) -> Any:
    """Plain data as JSON has it: a dict is {"dict": it}, an array {"array": its name in `arrays`}."""
    if isinstance(data, np.ndarray | np.generic):
        name = "/".join(path)
        while name in arrays:  # a key may have a slash
            name += "/"
        arrays[name] = np.asarray(data)
        return {"array": name}
    if isinstance(data, Mapping):
        return {"dict": {key: _without_arrays(part, (*path, key), arrays) for key, part in data.items()}}
    if isinstance(data, list):
        return [_without_arrays(part, (*path, str(i)), arrays) for i, part in enumerate(data)]
    return data


def _with_arrays(data: Any, tensor: Any) -> Any:
    if isinstance(data, list):
        return [_with_arrays(part, tensor) for part in data]
    if isinstance(data, dict):
        (kind, inside), = data.items()
        return tensor(inside) if kind == "array" else {key: _with_arrays(part, tensor) for key, part in inside.items()}
    return data
