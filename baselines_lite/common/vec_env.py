"""Environments: anything Gymnasium makes becomes a Gymnasium VectorEnv in SAME_STEP mode.

SAME_STEP: the step that ends an episode already returns the next episode's first observation; the final observation is
in `infos["final_obs"]`, so that no step is lost and time limits can bootstrap from it.
"""

from __future__ import annotations

import copy
import difflib
import importlib
import re
import sys
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from baselines_lite.common.config import AtariOptions
from baselines_lite.common.errors import UserError

EnvLike = str | gym.Env | VectorEnv | Callable[[], gym.Env]

# Gymnasium's extra that brings a family's dependencies, where it is not our default.
EXTRAS = {"mujoco": "baselines-lite[mujoco]", "box2d": "gymnasium[box2d]"}


class DropInfo(gym.Wrapper):
    """Forgets `info`: SyncVectorEnv batches every key of it into arrays at every step, 5 us on HalfCheetah (of 45)."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, _ = self.env.step(action)
        return obs, reward, terminated, truncated, {}


def family_of(spec: gym.envs.registration.EnvSpec | None) -> str:
    """The family whose preset fits: atari, mujoco, box2d, classic_control, toy_text or other."""
    entry_point = spec.entry_point if spec is not None else None
    module = entry_point if isinstance(entry_point, str) else getattr(entry_point, "__module__", "")
    if module.startswith("ale_py"):
        return "atari"
    for family in ("mujoco", "box2d", "classic_control", "toy_text"):
        if module.startswith(f"gymnasium.envs.{family}"):
            return family
    return "other"


def find_spec(env_id: str) -> gym.envs.registration.EnvSpec:
    """The spec of an id, or of `module:Id` after importing the module. Raises UserError with the nearest ids."""
    module, _, name = env_id.rpartition(":")
    if module:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise UserError(f"cannot import the module of the environment {env_id!r}: {error}") from None
    else:
        register_atari(name)
    try:
        return gym.spec(name)
    except gym.error.Error as error:
        near = difflib.get_close_matches(name, gym.registry, n=3, cutoff=0.6)
        hint = f"did you mean {' or '.join(near)}?" if near else f"Gymnasium says: {str(error).splitlines()[0]}"
        raise UserError(f"unknown environment {env_id!r}; {hint}") from None


def spec_of(env: EnvLike) -> gym.envs.registration.EnvSpec | None:
    """The spec of an id or of an object that has one; None for factories and unregistered environments."""
    if isinstance(env, str):
        return find_spec(env)
    return env.spec if isinstance(env, gym.Env | VectorEnv) else None


def name_of(env: EnvLike) -> str:
    """A name for an environment without an id: its class's or the factory's."""
    return type(env).__name__ if isinstance(env, gym.Env | VectorEnv) else getattr(env, "__name__", "custom")


def register_atari(name: str) -> None:
    """Registers ale-py's ids where the name may be one of them."""
    if name not in gym.registry and re.fullmatch(r"ALE/.*|[A-Za-z0-9]+-v[045]", name):
        import ale_py

        gym.register_envs(ale_py)


def make_env(spec: gym.envs.registration.EnvSpec, render_mode: str | None = None) -> gym.Env:
    """One environment of a registered id. Raises UserError where it cannot be made, naming what is missing."""
    # Checks at every step cost as much as CartPole itself: that an environment keeps the rules is for its author's
    # tests, that it is reset before it is stepped for ours.
    spec = copy.deepcopy(spec)
    spec.order_enforce = False
    try:
        return gym.make(spec, disable_env_checker=True, **({"render_mode": render_mode} if render_mode else {}))
    except gym.error.DependencyNotInstalled as error:
        extra = EXTRAS.get(family_of(spec))
        hint = f"pip install '{extra}'" if extra else "install what it asks for"
        raise UserError(f"the environment {spec.id} needs a missing package ({error}); {hint}") from None
    except Exception as error:
        raise UserError(f"the environment {spec.id} cannot be made: {type(error).__name__}: {error}") from error


def make_one(env_id: str, render_mode: str | None = None, verbose: bool = False,
             atari: AtariOptions | None = None) -> gym.Env:
    """One environment of an id or `module:Id`, ready to be stepped. Raises UserError where it cannot be made."""
    spec = find_spec(env_id)
    if family_of(spec) == "atari":
        from baselines_lite.common.atari import AtariGame

        game = AtariGame(spec, atari or AtariOptions(), render_mode and "rgb_array")
        return gym.wrappers.HumanRendering(game) if render_mode == "human" else game
    if not verbose:
        silence_mujoco(spec)
    env = make_env(spec, render_mode)
    return env if family_of(spec) == "classic_control" else DropInfo(env)  # classic control has no info to forget


def in_workers(factories: list[Callable[[], gym.Env]]) -> VectorEnv:
    """Environments that live in processes of their own, started afresh.

    For drawing: Mesa's and TensorFlow's copies of LLVM crash each other in one process.
    """
    return AsyncVectorEnv(factories, context="spawn", autoreset_mode=AutoresetMode.SAME_STEP)


def make_vec_env(env: EnvLike, num_env: int = 1, *, render_mode: str | None = None, verbose: bool = False,
                 atari: AtariOptions | None = None, threads: int = 1) -> VectorEnv:
    """`num_env` copies of an id, of `module:Id` or of a factory, stepped in this process; or an Env or VectorEnv.

    Stepping in process suits environments of up to some hundred microseconds a step; with a render_mode they live in
    worker processes. Atari games are native, on so many `threads`. A VectorEnv comes back as it is; it must be in
    SAME_STEP mode. Raises UserError for what cannot be made or used.
    """
    if isinstance(env, VectorEnv):
        mode = env.metadata.get("autoreset_mode")
        if mode != AutoresetMode.SAME_STEP:
            raise UserError(
                f"the vector environment resets in mode {getattr(mode, 'name', mode)}, which is not supported yet; "
                "make it with autoreset_mode=AutoresetMode.SAME_STEP"
            )
        return env
    if isinstance(env, gym.Env):
        if num_env != 1:
            raise UserError(f"num_env={num_env} needs an environment id or a factory: an Env object is one environment")
        return SyncVectorEnv([lambda: env], autoreset_mode=AutoresetMode.SAME_STEP)
    if isinstance(env, str):
        spec = find_spec(env)
        if family_of(spec) == "atari":
            from baselines_lite.common.atari import AtariGames

            return AtariGames(spec, num_env, atari or AtariOptions(), threads, render_mode)

        def factory() -> gym.Env:
            return make_one(env, render_mode, verbose)
    elif callable(env):
        factory = env
    else:
        raise UserError(f"the environment must be an id, a gymnasium Env, a VectorEnv or a factory, not {env!r}")
    if render_mode is not None:
        return in_workers([factory] * num_env)
    # copy=False: the Collector copies each observation once, into the rollout.
    return SyncVectorEnv([factory] * num_env, copy=False, autoreset_mode=AutoresetMode.SAME_STEP)


def silence_mujoco(spec: gym.envs.registration.EnvSpec) -> None:
    """Keeps MuJoCo's deprecation notes off the terminal and its MUJOCO_LOG.TXT out of the working directory.

    Other warnings (an unstable simulation, say) go to stderr, each once.
    """
    if family_of(spec) != "mujoco":
        return
    try:
        import mujoco
    except ImportError:
        return  # make_env says so
    mujoco.set_mju_user_warning(_print_once)


_printed: set[str] = set()


def _print_once(message: str) -> None:
    if "deprecated" not in message and message not in _printed:
        _printed.add(message)
        print(f"MuJoCo: {message.strip()}", file=sys.stderr)


def final_observations(infos: dict[str, Any], rows: np.ndarray) -> list[Any]:
    """The last observation of the episodes that ended in the given environments, from a SAME_STEP step's infos."""
    return [infos["final_obs"][n] for n in rows]
