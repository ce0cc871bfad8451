"""Environments: anything Gymnasium makes becomes a Gymnasium VectorEnv in SAME_STEP mode, or stays in NEXT_STEP mode.

SAME_STEP: the step that ends an episode already returns the next episode's first observation; the final observation is
in `infos["final_obs"]`, so that no step is lost and time limits can bootstrap from it. NEXT_STEP: the step after it
ignores its action and returns that observation. DISABLED, where the caller resets, is made SAME_STEP by `ResetDone`.
"""

from __future__ import annotations

import contextlib
import copy
import difflib
import importlib
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import get_all_start_methods, resource_tracker
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv, VectorWrapper
from gymnasium.vector.async_vector_env import _async_worker

from baselines_lite.common import tf_setup
from baselines_lite.common.config import AtariOptions
from baselines_lite.common.env_rules import Checked, Lent, broken_rule, explained, misfit
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
    # Gymnasium's checks at every step cost as much as CartPole itself: env_rules looks at the first one, and that
    # environments are reset before they are stepped is for our tests.
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
    if family_of(spec) == "classic_control":
        return env  # which has no info to forget
    return DropInfo(Checked(env) if family_of(spec) == "other" else env)  # Gymnasium's own keep the rules


class WorkerError(RuntimeError):
    """An environment failed in its worker process; the text has its index and the worker's traceback."""


class _Failures:
    """A worker's error queue: what it puts becomes a WorkerError in the main process, or a UserError for a broken rule.

    `env` is None where it could not be made.
    """

    def __init__(self, queue: Any) -> None:
        self._queue, self.env = queue, None

    def put(self, failure: tuple[int, type, str, str]) -> None:
        """Takes (index, type, message, traceback), as Gymnasium's workers give it while they handle the exception."""
        index, kind, message, trace = failure
        error = sys.exception()
        told = error if isinstance(error, UserError) else broken_rule([self.env], error)
        if told is not None:
            self._queue.put((index, UserError, str(told), trace))
            return
        name = getattr(kind, "__name__", kind)
        text = f"environment {index} failed in its worker process: {name}: {message}\n{trace}"
        self._queue.put((index, WorkerError, text, trace))


def _worker(index: int, env_fn: Callable[[], gym.Env], pipe: Any, parent_pipe: Any, shared_memory: Any,
            error_queue: Any, autoreset_mode: AutoresetMode, semaphore: Any) -> None:
    """A worker process: Gymnasium's, except that Ctrl-C is left to the main process, any failure is reported, and BLAS
    has one thread.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    failures = _Failures(error_queue)
    try:
        env = failures.env = env_fn()
        tf_setup.limit_worker()
    except Exception as error:
        failures.put((index, type(error), str(error), traceback.format_exc()))
        pipe.send((None, False))
        return
    _async_worker(index, lambda: env, pipe, parent_pipe, shared_memory, failures, autoreset_mode, semaphore)


class InProcess(SyncVectorEnv):
    """Gymnasium's environments in this process, which say what rule was broken where one fails over that."""

    reset, step = explained(SyncVectorEnv.reset), explained(SyncVectorEnv.step)


class Workers(AsyncVectorEnv):
    """Gymnasium's environments in worker processes, which can also be left in the middle of a step.

    Ctrl-C, which a terminal sends to all of them, is left to the main process from their first moment on.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        with contextlib.ExitStack() as self._starting:
            self._starting.enter_context(children_without_ctrl_c())
            super().__init__(*arguments, **named)

    def _check_spaces(self) -> None:
        self._starting.close()  # all have been started; waiting for them can be interrupted
        super()._check_spaces()

    def _raise_if_errors(self, successes: Iterable[bool]) -> None:
        """As Gymnasium's, which would print the worker's traceback too: the exception says all that is to be said."""
        if not all(successes):
            with warnings.catch_warnings(action="ignore"):
                super()._raise_if_errors(successes)

    def close_extras(self, timeout: float | None = None, terminate: bool = False) -> None:
        """As Gymnasium's; but with `terminate`, workers are ended without a look at what half-read answer they gave."""
        if not terminate:
            super().close_extras(timeout)
            return
        for process in self.processes:
            process.kill()  # SDL, which draws, catches SIGTERM
        for process, pipe in zip(self.processes, self.parent_pipes, strict=True):
            process.join()
            if pipe is not None:
                pipe.close()


@contextlib.contextmanager
def children_without_ctrl_c() -> Iterator[None]:
    """Within the block, SIGINT is held back from this thread; a process that is started in it never sees one."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # which would let it through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def in_workers(factories: list[Callable[[], gym.Env]], context: str = "spawn") -> VectorEnv:
    """Environments that live in processes of their own, started afresh and without MPI's variables.

    Never by a plain fork, which would copy locks that TensorFlow's and MPI's threads hold. For drawing, `spawn`: Mesa's
    and TensorFlow's copies of LLVM crash each other in one process.
    """
    return Workers(factories, context=context, worker=_worker, copy=False, autoreset_mode=AutoresetMode.SAME_STEP)


def failed(venv: VectorEnv, error: BaseException) -> str | None:
    """Which environment raised an exception, "environment 3" where that can be told; None if none of them did."""
    envs, found = getattr(venv.unwrapped, "envs", ()), None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        owner = frame.f_locals.get("self")
        found = next((f"environment {n}" for n, env in enumerate(envs) if env is owner), found)
        if found is None and isinstance(owner, VectorEnv):
            found = "an environment"
    return found


def close(venv: VectorEnv, at_once: bool = False) -> None:
    """Closes a vector environment; `at_once` after an interruption, when workers may be in the middle of a step."""
    if at_once and isinstance(venv.unwrapped, Workers):
        venv.unwrapped.close(terminate=True)
    venv.close()


def make_vec_env(env: EnvLike, num_env: int = 1, *, vec: str | None = None, render_mode: str | None = None,
                 verbose: bool = False, atari: AtariOptions | None = None, threads: int = 1) -> VectorEnv:
    """`num_env` copies of an id, of `module:Id` or of a factory; or an Env or VectorEnv.

    vec: "sync" steps them in this process, one after the other, which suits environments of up to some hundred
    microseconds a step; "async" in worker processes; "native" is the vector environment that the id itself brings, with
    so many `threads` for Atari games, which are always native. With a render_mode, environments live in worker
    processes. A VectorEnv must say its autoreset mode; any of the three will do. Raises UserError for what cannot be
    made or used.
    """
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
    if isinstance(env, str):
        spec = find_spec(env)
        if family_of(spec) == "atari":
            from baselines_lite.common.atari import AtariGames

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
            return Checked(env())
    else:
        raise UserError(f"the environment must be an id, a gymnasium Env, a VectorEnv or a factory, not {env!r}")
    if render_mode is not None:
        return in_workers([factory] * num_env)
    if vec == "async":
        return in_workers([factory] * num_env, "forkserver" if "forkserver" in get_all_start_methods() else "spawn")
    # copy=False: the Collector copies each observation once, into the rollout.
    return InProcess([factory] * num_env, copy=False, autoreset_mode=AutoresetMode.SAME_STEP)


def make_native(spec: gym.envs.registration.EnvSpec, num_env: int, render_mode: str | None) -> VectorEnv:
    """The vector environment that an id brings. Raises UserError where it brings none."""
    if spec.vector_entry_point is None:
        raise UserError(f"{spec.id} brings no vector environment of its own; use --vec=sync or --vec=async")
    options = {"render_mode": render_mode} if render_mode else {}
    venv = gym.make_vec(spec.id, num_env, vectorization_mode="vector_entry_point", **options)
    return ResetDone(venv) if venv.metadata["autoreset_mode"] == AutoresetMode.DISABLED else venv


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


def final_observations(infos: dict[str, Any], rows: np.ndarray) -> Any:
    """The last observations of the episodes that ended in the environments `rows`, as a batch.

    From the infos of a step in SAME_STEP mode. Gymnasium's own vector environments give an object array with an
    observation for each environment that ended; others, such as ale-py's, a batch for all. Raises UserError where a
    vector environment gives none.
    """
    if "final_obs" not in infos:
        raise UserError("the vector environment cut an episode off without giving its final observation in "
                        "infos['final_obs'], as SAME_STEP mode demands")
    final = infos["final_obs"]
    if isinstance(final, np.ndarray) and final.dtype == object:
        return stack([final[n] for n in rows])
    return map_arrays(lambda array: array[rows], final)


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
            final = map_arrays(np.copy, obs)
            # The ends are copied: an environment may clear its own arrays when it resets.
            terminated, truncated, rewards = terminated.copy(), truncated.copy(), np.copy(rewards)
            obs, _ = self.env.reset(options={"reset_mask": done})
            infos = {**infos, "final_obs": final}
        return obs, rewards, terminated, truncated, infos
