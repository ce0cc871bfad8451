"""One file per policy: safetensors with weights and statistics, and JSON metadata. Never pickle.

The metadata hold the algorithm, its config, the network and the spaces, so that the file alone gives back the policy.
Weights are named by the attributes that lead to them, `pi_net/layers/0/w`. Files are written beside their place and
moved into it, so that an interrupted save never leaves half a file.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from baselines_lite.common.actor_q import ActorQ  # noqa: F401  (a kind of Policy)
from baselines_lite.common.deterministic_policy import DeterministicPolicy  # noqa: F401  (a kind of Policy)
from baselines_lite.common.errors import UserError
from baselines_lite.common.parameters import weights
from baselines_lite.common.policy import Policy
from baselines_lite.common.q_policy import QPolicy  # noqa: F401  (a kind of Policy)

FORMAT = 3


def save_policy(path: str | Path, policy: Policy) -> None:
    """Writes the policy to `path`, replacing what is there. Raises UserError where that is not possible."""
    metadata = {
        "format": FORMAT,
        **policy.info,
        "policy": policy.kind(),
        "settings": policy.settings,
        "observation_space": space_to_json(policy.observation_space),
        "action_space": space_to_json(policy.action_space),
    }
    tensors = {f"weights/{name}": value.numpy() for name, value in weights(policy).items()}
    tensors |= {f"normalize/{name}": value for name, value in policy.normalize.state().items()}
    data = save({name: np.asarray(t, order="C") for name, t in tensors.items()},
                metadata={"baselines_lite": json.dumps(metadata, default=dict)})  # tf.Module wraps dicts
    path = Path(path)
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(data)
        os.replace(part, path)
    except OSError as error:
        raise UserError(f"cannot write the model file {str(path)!r}: {error.strerror}") from None


def load_policy(path: str | Path) -> Policy:
    """The policy in a file that `save_policy` wrote. Raises UserError if the file is missing, damaged or foreign."""
    metadata, tensors = read(path)
    try:
        if metadata["policy"] not in Policy.KINDS:
            raise UserError(f"the model file {str(path)!r} holds a policy of the class {metadata['policy']}, which is "
                            "not loaded: import its module first, or on the command line give --alg="
                            f"{metadata.get('algorithm')}")
        policy = Policy.KINDS[metadata["policy"]](space_from_json(metadata["observation_space"]),
                                                  space_from_json(metadata["action_space"]), **metadata["settings"])
        policy.info = {k: metadata[k] for k in ("algorithm", "env", "config", "atari", "versions") if k in metadata}
        assign(policy, path, tensors)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"the model file {str(path)!r} is damaged: {type(error).__name__}: {error}") from None
    return policy


def load_into(policy: Policy, path: str | Path) -> None:
    """Gives a policy the weights and statistics of a file. Raises UserError if they are for another kind of policy."""
    metadata, tensors = read(path)
    mine = {"algorithm": policy.info.get("algorithm"), "policy": policy.kind(), **policy.settings,
            "observation_space": space_to_json(policy.observation_space),
            "action_space": space_to_json(policy.action_space)}
    if "." in (mine["algorithm"] or ""):
        del mine["algorithm"]  # one's own may start from what the algorithm that it was copied from has trained
    theirs = {**metadata, **metadata["settings"]}
    for key, value in mine.items():
        if key not in ("compute", "reward_gamma", "epsilon") and theirs.get(key) != value:
            raise UserError(f"the model file {str(path)!r} does not fit: its {key} is {theirs.get(key)}, not {value}")
    assign(policy, path, tensors)


def read(path: str | Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """A model file's metadata and tensors. Raises UserError if it cannot be read."""
    if not Path(path).is_file():
        raise UserError(f"there is no model file {str(path)!r}")
    try:
        with safe_open(str(path), framework="numpy") as file:
            text = (file.metadata() or {}).get("baselines_lite")
            if text is None:
                raise UserError(f"the file {str(path)!r} was not written by baselines_lite")
            metadata = json.loads(text)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise UserError(f"the model file {str(path)!r} is damaged or no model file: {error}") from None
    if metadata.get("format") != FORMAT:
        raise UserError(f"the model file {str(path)!r} has format {metadata.get('format')}, but this version reads "
                        f"only {FORMAT}: load it with the version that wrote it, or train the policy again")
    return metadata, tensors


def assign(policy: Policy, path: str | Path, tensors: dict[str, np.ndarray]) -> None:
    """Puts a file's tensors into a policy. Raises UserError where names or shapes differ; then nothing is changed."""
    variables = weights(policy)
    found = {k.removeprefix("weights/"): t for k, t in tensors.items() if k.startswith("weights/")}
    if found.keys() != variables.keys() or any(found[k].shape != variables[k].shape for k in found):
        raise UserError(f"the model file {str(path)!r} does not fit: its weights have other names or shapes")
    policy.normalize.load_state({k.removeprefix("normalize/"): t for k, t in tensors.items() if "normalize/" in k})
    for name, tensor in found.items():
        variables[name].assign(tensor)


def space_to_json(space: gym.Space) -> dict[str, Any]:
    """A space as JSON-ready values: those that policies support, nested as they are."""
    match space:
        case gym.spaces.Discrete():
            return {"kind": "Discrete", "n": int(space.n), "start": int(space.start)}
        case gym.spaces.MultiDiscrete():
            return {"kind": "MultiDiscrete", "nvec": space.nvec.tolist(), "start": space.start.tolist(),
                    "dtype": space.dtype.name}
        case gym.spaces.MultiBinary():
            return {"kind": "MultiBinary", "n": space.n if isinstance(space.n, int) else list(space.shape)}
        case gym.spaces.Dict():
            return {"kind": "Dict", "spaces": [[key, space_to_json(inner)] for key, inner in space.spaces.items()]}
        case gym.spaces.Tuple():
            return {"kind": "Tuple", "spaces": [space_to_json(inner) for inner in space.spaces]}
    bounds = {}
    for name, bound in (("low", space.low), ("high", space.high)):
        numbers = [v if math.isfinite(v) else str(v) for v in bound.ravel().tolist()]
        bounds[name] = numbers[0] if len(set(numbers)) == 1 else numbers  # a picture has thousands of equal ones
    return {"kind": "Box", "shape": list(space.shape), "dtype": space.dtype.name, **bounds}


def space_from_json(values: dict[str, Any]) -> gym.Space:
    """The space that `space_to_json` described. Raises KeyError or ValueError for anything else."""
    match values["kind"]:
        case "Discrete":
            return gym.spaces.Discrete(values["n"], start=values["start"])
        case "MultiDiscrete":
            return gym.spaces.MultiDiscrete(values["nvec"], np.dtype(values["dtype"]), start=values["start"])
        case "MultiBinary":
            return gym.spaces.MultiBinary(values["n"])
        case "Dict":
            return gym.spaces.Dict([(key, space_from_json(inner)) for key, inner in values["spaces"]])
        case "Tuple":
            return gym.spaces.Tuple([space_from_json(inner) for inner in values["spaces"]])
        case "Box":
            dtype, shape = np.dtype(values["dtype"]), values["shape"]
            low, high = (np.broadcast_to(np.array(values[name], float).astype(dtype), np.prod(shape, dtype=int))
                         .reshape(shape) for name in ("low", "high"))
            return gym.spaces.Box(low, high, dtype=dtype.type)
    raise ValueError(f"unknown kind of space {values['kind']!r}")
