"""Policies from files. The metadata hold the algorithm, its config, the network and the spaces: the file is enough.

Nothing is imported that the caller has neither imported nor named, and loading takes at most twice the file's size and
64 MiB. (Only what the code of a network of one's own allocates by itself, beside layers of ours, is up to that code.)
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import math
import sys
import types
import typing
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from baselines_lite.common.envs.atari_options import AtariOptions
from baselines_lite.common.networks.check_options import check_network_options
from baselines_lite.common.networks.layers import Blank
from baselines_lite.common.policies import actor_q, deterministic_policy, q_policy  # noqa: F401  (kinds of Policy)
from baselines_lite.common.policies.file_format import Fault, ModelFile, check_tensor, opened, space_from_json
from baselines_lite.common.policies.policy import Policy
from baselines_lite.common.system.options import Json, check, convert, override, to_dict

COMPUTE = ("float32", "bfloat16")  # what a policy of float32 weights may compute in
INFO = {"algorithm": str, "env": str, "env_kwargs": str | None, "config": dict, "atari": dict | None,
        "versions": dict}  # see Policy.info
FREE = ("compute", "reward_gamma", "epsilon", "joined")  # settings that may change where training starts from a file


def load_policy(path: str | Path, network: str | None = None) -> Policy:
    """The policy in a file that Policy.save wrote. Raises UserError if the file is missing, damaged or foreign.

    `network`: the file's network where that is a `module:function` whose module has not been imported yet.
    """
    with opened(path) as file:
        kind = Policy.KINDS.get(str(file.metadata["policy"]))
        if kind is None:
            raise Fault(f"holds a policy of the class {file.metadata['policy']}, which is not loaded: import its "
                        f"module first, or on the command line give --alg={file.metadata.get('algorithm')}")
        settings = checked_settings(kind, file.metadata["settings"], network)
        spaces = [space_from_json(file.metadata[name], file) for name in ("observation_space", "action_space")]
        sizes = [math.prod(shape) for name, shape in file.shapes.items() if name.startswith("weights/")]
        policy = kind.of(*spaces, settings, weights_rng=Blank(sizes))
        if policy.settings.keys() != settings.keys():
            raise Fault(f"is damaged: its settings are {', '.join(settings)}, not {', '.join(policy.settings)}")
        policy.info = checked_info(file.metadata, policy)
        put_into(policy, file)
    return policy


def load_into(policy: Policy, path: str | Path) -> None:
    """Gives a policy the weights and statistics of a file. Raises UserError if they are for another kind of policy."""
    mine = json.loads(policy.description()[0])
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
    """Whether a function's parameters are those of a network; see builders.py."""
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
    if info.get("env_kwargs") is not None:
        Json(info["env_kwargs"])  # as text, which tells it from what the caller has given: see evaluation.as_trained
    if info.get("atari") is not None:
        info["atari"] = to_dict(override(AtariOptions(), info["atari"]))
        if policy.observation_space.shape[:1] != (info["atari"]["frame_stack"],):
            raise Fault(f"is damaged: its observations do not show {info['atari']['frame_stack']} frames")
    return info


def put_into(policy: Policy, file: ModelFile) -> None:
    """Puts a file's tensors into a policy. Raises Fault where they do not fit or are no numbers; nothing has changed
    then.
    """
    mine = policy.contents()
    theirs = {name: shape for name, shape in file.shapes.items() if not name.startswith("spaces/")}
    for name in sorted(mine.keys() | theirs.keys()):
        own = tuple(mine[name].shape) if name in mine else None
        if theirs.get(name) != own:
            raise Fault(f"does not fit: its {name} is {described(theirs.get(name))}, not {described(own)}")
    for name, own in mine.items():
        check_tensor(name, file.read(name), own)
    statistics = {name: file.read(name) for name in mine if name.startswith("normalize/")}
    policy.normalize.load({name.removeprefix("normalize/"): array for name, array in statistics.items()})
    for name, own in mine.items():
        if name.startswith("weights/"):
            own.assign(tf.raw_ops.Identity(input=file.read(name)))  # assigning an array would copy it twice


def described(shape: tuple[int, ...] | None) -> str:
    """A tensor's shape in words."""
    return "missing" if shape is None else f"of shape {list(shape)}"


def is_sound(policy: Policy) -> bool:
    """Whether a file of the policy could be loaded again: its parameters and statistics are finite."""
    try:
        for name, own in policy.contents().items():
            check_tensor(name, np.asarray(own), own)
    except Fault:
        return False
    return True
