"""Environments in this process and in worker processes, and which one failed."""

from __future__ import annotations

import contextlib
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import resource_tracker
from typing import Any

import gymnasium as gym
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.async_vector_env import _async_worker

from baselines_lite.common.envs.env_rules import broken_rule, explained
from baselines_lite.common.system import tf_setup
from baselines_lite.common.system.errors import UserError


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
