"""Environments: anything Gymnasium makes becomes a Gymnasium VectorEnv in SAME_STEP mode, or stays in NEXT_STEP mode.

SAME_STEP: the step that ends an episode already returns the next episode's first observation; the final observation is
in `infos["final_obs"]`, so that no step is lost and time limits can bootstrap from it. NEXT_STEP: the step after it
ignores its action and returns that observation. DISABLED, where the caller resets, is made SAME_STEP by `ResetDone`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing import get_all_start_methods
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper

from baselines_lite.common.envs import video
from baselines_lite.common.envs.atari_options import AtariOptions
from baselines_lite.common.envs.env_rules import Checked, Lent, misfit
from baselines_lite.common.envs.make import DropInfo, family_of, find_spec, make_one, staggered
from baselines_lite.common.envs.workers import InProcess, Workers, in_workers
from baselines_lite.common.system.errors import UserError

EnvLike = str | EnvSpec | gym.Env | VectorEnv | Callable[[], gym.Env]


def spec_of(env: EnvLike) -> EnvSpec | None:
    """The spec of an id or of an object that has one; None for factories and unregistered environments."""
    if isinstance(env, str | EnvSpec):
        return find_spec(env)
    return env.spec if isinstance(env, gym.Env | VectorEnv) else None


def name_of(env: EnvLike) -> str:
    """A name for an environment without an id: its class's or the factory's."""
    return type(env).__name__ if isinstance(env, gym.Env | VectorEnv) else getattr(env, "__name__", "custom")


def make_vec_env(env: EnvLike, num_env: int = 1, *, vec: str | None = None, render_mode: str | None = None,
                 verbose: bool = False, atari: AtariOptions | None = None, threads: int = 1,
                 ages: Sequence[float] | None = None) -> VectorEnv:
    """`num_env` copies of an id, of `module:Id`, of a spec or of a factory; or an Env or VectorEnv.

    vec: "sync" steps them in this process, one after the other, which suits environments of up to some hundred
    microseconds a step; "async" in worker processes; "native" is the vector environment that the id itself brings, with
    so many `threads` for Atari games, which are always native. With a render_mode, environments live in worker
    processes. A VectorEnv must say its autoreset mode; any of the three will do. `ages` [num_env] are shares of their
    time limits that first episodes have behind them, where we make single environments; see make.staggered. Raises
    UserError for what cannot be made or used.
    """
    if render_mode is not None:
        video.prepare()
    if isinstance(env, VectorEnv):
        if vec is not None:
            raise UserError(f"vec={vec} is for an environment's id or factory: a VectorEnv is one already")
        mode = env.metadata.get("autoreset_mode")
        if not isinstance(mode, AutoresetMode):
            raise UserError("the vector environment does not say how it resets: set metadata['autoreset_mode'] to one "
                            "of gymnasium.vector.AutoresetMode")
        return ResetDone(env) if mode == AutoresetMode.DISABLED else env
    if isinstance(env, gym.Env):
        for name, value, default in (("num_env", num_env, 1), ("vec", vec or "sync", "sync")):
            if value != default:
                raise UserError(f"{name}={value} is for an environment's id or factory: an Env object is one "
                                "environment in this process")
        return InProcess([lambda: Lent(env)], autoreset_mode=AutoresetMode.SAME_STEP)
    if isinstance(env, str | EnvSpec):
        spec = find_spec(env)
        if family_of(spec) == "atari":
            from baselines_lite.common.envs.atari import AtariGames

            if vec not in (None, "native"):
                raise UserError(f"Atari games are always native: vec={vec} is for other environments")
            return AtariGames(spec, num_env, atari or AtariOptions(), threads, render_mode)
        if vec == "native":
            return make_native(spec, num_env, render_mode)

        def factory() -> gym.Env:
            return make_one(env, render_mode, verbose)
    elif callable(env):
        if vec == "native":
            raise UserError("vec=native is for an environment's id: a factory makes single environments")

        def factory() -> gym.Env:
            return DropInfo(Checked(env()))
    else:
        raise UserError(f"the environment must be an id, a gymnasium Env, a VectorEnv or a factory, not {env!r}")
    factories = [partial(staggered, factory, age) for age in ages] if ages is not None else [factory] * num_env
    if render_mode is not None:
        return in_workers(factories)
    if vec == "async":
        return in_workers(factories, "forkserver" if "forkserver" in get_all_start_methods() else "spawn")
    # copy=False: the Collector copies each observation once, into the rollout.
    return InProcess(factories, copy=False, autoreset_mode=AutoresetMode.SAME_STEP)


def cut_early(venv: VectorEnv) -> np.ndarray:
    """Which environments [N] have first episodes that a time limit, if it ends them, ends early: see make.staggered."""
    base = venv.unwrapped
    ours = isinstance(base, InProcess | Workers)
    return np.array(base.call("has_wrapper_attr", "staggered_by") if ours else [False] * venv.num_envs)


def make_native(spec: EnvSpec, num_env: int, render_mode: str | None) -> VectorEnv:
    """The vector environment that an id brings. Raises UserError where it brings none."""
    if spec.vector_entry_point is None:
        raise UserError(f"{spec.id} brings no vector environment of its own; use --vec=sync or --vec=async")
    options = {"render_mode": render_mode} if render_mode else {}
    venv = gym.make_vec(spec, num_env, vectorization_mode="vector_entry_point", **options)
    return ResetDone(venv) if venv.metadata["autoreset_mode"] == AutoresetMode.DISABLED else venv


def reset(venv: VectorEnv, seeds: list[int]) -> Any:
    """Begins new episodes, with a seed for each environment where the vector environment takes that; observations.

    Raises UserError where these are not as the vector environment's space says.
    """
    try:
        obs, _ = venv.reset(seed=seeds)
    except (TypeError, gym.error.Error):  # Gymnasium's interface asks for no more than one seed for all
        obs, _ = venv.reset(seed=seeds[0])
    if fault := misfit(obs, venv.observation_space):
        raise UserError(f"the vector environment {name_of(venv.unwrapped)} breaks a rule of Gymnasium: reset() gave "
                        f"{fault}")
    return obs


def final_observations(infos: dict[str, Any], rows: np.ndarray, space: gym.Space) -> Any:
    """The last observations, of a `space`, of the episodes that ended in the environments `rows`, as a batch.

    From the infos of a step in SAME_STEP mode. Gymnasium's own vector environments give an object array with an
    observation for each environment that ended; others, such as ale-py's, a batch for all. Raises UserError where a
    vector environment gives none.
    """
    if "final_obs" not in infos:
        raise UserError("the vector environment cut an episode off without giving its final observation in "
                        "infos['final_obs'], as SAME_STEP mode demands")
    final = infos["final_obs"]
    if isinstance(final, np.ndarray) and final.dtype == object:
        return stack([nested(space, final[n]) for n in rows])
    return map_arrays(lambda array: array[rows], nested(space, final))


def nested(space: gym.Space, batch: Any) -> Any:
    """An observation or a batch of them, whose tuples may be lists, nested as the space is. A Box's list stays one."""
    match space:
        case gym.spaces.Dict():
            return {key: nested(inner, batch[key]) for key, inner in space.spaces.items()}
        case gym.spaces.Tuple():
            return tuple(nested(inner, part) for inner, part in zip(space.spaces, batch, strict=True))
    return batch


def map_arrays(function: Callable[[np.ndarray], Any], tree: Any) -> Any:
    """A batch of observations, nested as it is, with a function applied to each array."""
    if isinstance(tree, dict):
        return {key: map_arrays(function, inner) for key, inner in tree.items()}
    if isinstance(tree, tuple):
        return tuple(map_arrays(function, inner) for inner in tree)
    return function(tree)


def stack(observations: list[Any]) -> Any:
    """Single observations, nested alike, as a batch."""
    if isinstance(observations[0], dict):
        return {key: stack([obs[key] for obs in observations]) for key in observations[0]}
    if isinstance(observations[0], tuple):
        return tuple(stack(list(parts)) for parts in zip(*observations, strict=True))
    return np.stack(observations)


class ResetDone(VectorWrapper):
    """Makes SAME_STEP mode of DISABLED: resets the environments that are done and gives their last observations."""

    def __init__(self, env: VectorEnv) -> None:
        super().__init__(env)
        self.metadata = {**env.metadata, "autoreset_mode": AutoresetMode.SAME_STEP}

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """As Gymnasium's."""
        obs, rewards, terminated, truncated, infos = self.env.step(actions)
        done = terminated | truncated
        if done.any():
            final = map_arrays(np.copy, nested(self.single_observation_space, obs))
            # The ends are copied: an environment may clear its own arrays when it resets.
            terminated, truncated, rewards = terminated.copy(), truncated.copy(), np.copy(rewards)
            obs, _ = self.env.reset(options={"reset_mask": done})
            infos = {**infos, "final_obs": final}
        return obs, rewards, terminated, truncated, infos
