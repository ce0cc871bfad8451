"""Environments in this process and in worker processes, and which one failed."""

from __future__ import annotations

import atexit
import contextlib
import functools
import multiprocessing
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable
from multiprocessing import connection, resource_tracker
from types import FrameType
from typing import Any

import gymnasium as gym
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.async_vector_env import _async_worker

from baselines_lite.common.envs.env_rules import broken_rule, explained
from baselines_lite.common.envs.env_state import env_state, restore_env, unknown_part
from baselines_lite.common.envs.make import come_early
from baselines_lite.common.system import tf_setup
from baselines_lite.common.system.errors import UserError
from baselines_lite.common.system.stop_signals import STOP, children_without, leave_to_parent

GONE = 60  # seconds within which a process has ended whose pipe is closed


class WorkerError(RuntimeError):
    """An environment failed in its worker process, or that died; the text has its index and the worker's traceback."""


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
            error_queue: Any, *others: Any) -> None:  # which others differs from release to release
    """A worker process: Gymnasium's, except that signals to stop are left to the main process, any failure is reported,
    BLAS has one thread, and it does not outlive the main process, not even in a step that never ends.
    """
    leave_to_parent()
    threading.Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()
    failures = _Failures(error_queue)
    try:
        env = failures.env = env_fn()
        tf_setup.limit_worker()
    except Exception as error:
        failures.put((index, type(error), str(error), traceback.format_exc()))
        pipe.send((None, False))
        return
    _async_worker(index, lambda: Kept(env), pipe, parent_pipe, shared_memory, failures, *others)


class Kept(gym.Wrapper):
    """In a worker process: an environment whose state the main process can get and set."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As Gymnasium's; with a seed, a run begins: see make.come_early."""
        found = super().reset(seed=seed, options=options)
        if seed is not None:
            come_early(self.env)
        return found

    @property
    def unknown_part(self) -> str | None:
        """As env_state's."""
        return unknown_part(self.env)

    @property
    def env_state(self) -> dict[str, Any]:
        """As env_state's; set, as `restore_env`."""
        return env_state(self.env)

    @env_state.setter
    def env_state(self, state: dict[str, Any]) -> None:
        restore_env(self.env, state)


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)


def told(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of Gymnasium's that speaks with worker processes, where a pipe that is closed tells which one died."""

    @functools.wraps(method)
    def call(self: Workers, *arguments: Any, **named: Any) -> Any:
        try:
            return method(self, *arguments, **named)
        except (EOFError, OSError) as error:
            raise self.failure() or error from None

    return call


class InProcess(SyncVectorEnv):
    """Gymnasium's environments in this process, which say what rule was broken where one fails over that."""

    step = explained(SyncVectorEnv.step)

    @explained
    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As Gymnasium's; with a seed, a run begins: see make.come_early."""
        found = super().reset(seed=seed, options=options)
        if seed is not None:
            for env in self.envs:
                come_early(env)
        return found


class Workers(AsyncVectorEnv):
    """Gymnasium's environments in worker processes, which can also be left in the middle of a step.

    The signals STOP, which a terminal or Slurm sends to all of them, are left to the main process from their first
    moment on.
    """

    reset_async, reset_wait = told(AsyncVectorEnv.reset_async), told(AsyncVectorEnv.reset_wait)
    step_async, step_wait = told(AsyncVectorEnv.step_async), told(AsyncVectorEnv.step_wait)
    call_async, call_wait = told(AsyncVectorEnv.call_async), told(AsyncVectorEnv.call_wait)
    set_attr = told(AsyncVectorEnv.set_attr)

    def __init__(self, *arguments: Any, **named: Any) -> None:
        with contextlib.ExitStack() as self._starting:
            with children_without(STOP):
                resource_tracker.ensure_running()  # which lets some through again
            self._starting.enter_context(children_without(STOP))
            super().__init__(*arguments, **named)

    def unknown_part(self) -> str | None:
        """As env_state's."""
        return next(filter(None, self.get_attr("unknown_part")), None)

    def get_state(self) -> list[dict[str, Any]]:
        """The environments' states. Not the observations: a step gives all of them anew."""
        return list(self.get_attr("env_state"))

    def set_state(self, states: list[dict[str, Any]]) -> None:
        """Lets the environments go on from these states. Raises WorkerError for what cannot be the state of one."""
        self.set_attr("env_state", states)

    @told
    def _check_spaces(self) -> None:
        self._starting.close()  # all have been started; waiting for them can be interrupted
        super()._check_spaces()

    def _raise_if_errors(self, successes: Iterable[bool]) -> None:
        """As Gymnasium's, which would print the worker's traceback too: the exception says all that is to be said."""
        if not all(successes):
            with warnings.catch_warnings(action="ignore"):
                super()._raise_if_errors(successes)

    def failure(self) -> Exception | None:
        """Why a pipe is closed: what a worker process reported, or which ones died and how. None: none has ended."""
        connection.wait([process.sentinel for process in self.processes], GONE)
        if not self.error_queue.empty():
            _, kind, text, _ = self.error_queue.get()
            return kind(text)
        ends = {n: process.exitcode for n, process in enumerate(self.processes) if process.exitcode is not None}
        died = "; ".join(f"the worker process of environment {n} died ({how(code)})" for n, code in ends.items())
        return WorkerError(died) if died else None

    def close_extras(self, timeout: float | None = None, terminate: bool = False) -> None:
        """As Gymnasium's; but with `terminate`, workers are ended without a look at what half-read answer they gave,
        and so are those that are left when one has died.
        """
        if not terminate:
            with contextlib.suppress(EOFError, OSError, WorkerError):
                super().close_extras(timeout)
                return
        for process in self.processes:
            process.kill()  # SDL, which draws, catches SIGTERM
        for process, pipe in zip(self.processes, self.parent_pipes, strict=True):
            process.join()
            if pipe is not None:
                pipe.close()


def how(exitcode: int) -> str:
    """How a process ended, by its exit code as multiprocessing gives it."""
    return signal.Signals(-exitcode).name if exitcode < 0 else f"exit status {exitcode}"


@atexit.register
def _kill_workers() -> None:
    """When Python ends, before multiprocessing sends those that nobody closed SIGTERM and waits for them."""
    for process in multiprocessing.active_children():
        if process.name.startswith(f"Worker<{Workers.__name__}>"):
            process.kill()


def in_workers(factories: list[Callable[[], gym.Env]], context: str = "spawn") -> VectorEnv:
    """Environments that live in processes of their own, started afresh and without MPI's variables.

    Never by a plain fork, which would copy locks that TensorFlow's and MPI's threads hold. For drawing, `spawn`: Mesa's
    and TensorFlow's copies of LLVM crash each other in one process.
    """
    return Workers(factories, context=context, worker=_worker, copy=False, autoreset_mode=AutoresetMode.SAME_STEP)


def failed(venv: VectorEnv, error: BaseException) -> str | None:
    """Which environment raised an exception, "environment 3" where that can be told; None if none of them did."""
    return place(venv, (frame for frame, _ in traceback.walk_tb(error.__traceback__)))


def place(venv: VectorEnv, frames: Iterable[FrameType]) -> str | None:
    """Which environment frames, innermost last, are in: "environment 3" where that can be told; None if in none.

    Of environments in worker processes it is the one whose answer is read.
    """
    parts, found = getattr(venv.unwrapped, "envs", None) or getattr(venv.unwrapped, "parent_pipes", ()), None
    for frame in frames:
        owner = frame.f_locals.get("self")
        found = next((f"environment {n}" for n, part in enumerate(parts) if part is owner), found)
        if found is None and isinstance(owner, VectorEnv):
            found = "an environment"
    return found


def awaited(venv: VectorEnv, frames: list[FrameType]) -> str | None:
    """As `place`, for the frames of another thread, which waits: all the worker processes that have not answered."""
    owners = [frame.f_locals.get("self") for frame in frames]
    pipes = list(enumerate(getattr(venv.unwrapped, "parent_pipes", ())))
    first = next((n for n, pipe in pipes if any(pipe is owner for owner in owners)), None)  # they answer in this order
    if first is None:
        return place(venv, frames)
    silent = [str(n) for n, pipe in pipes[first:] if n == first or (pipe is not None and not pipe.poll())]
    return f"environment{'s' * (len(silent) > 1)} {', '.join(silent)}"


def close(venv: VectorEnv, at_once: bool = False) -> None:
    """Closes a vector environment; `at_once` after an interruption, when workers may be in the middle of a step."""
    if at_once and isinstance(venv.unwrapped, Workers):
        venv.unwrapped.close(terminate=True)
    venv.close()
