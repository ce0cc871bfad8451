"""Processes: a `Comm` over MPI, or over nothing when there is one process. The only module that imports mpi4py.

Ground rules that keep runs from hanging: collectives run on every rank, unconditionally and in the same order;
branches are taken on reduced values; a verdict that one rank reaches is shared (`Comm.together`) before anyone acts on
it; what else is raised on a rank, SystemExit too, ends all of them (`Comm.guarded`, `MPI_Abort`).
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import socket
import stat
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, TextIO, TypeVar

import numpy as np

from baselines_lite.common.system.errors import UserError

T = TypeVar("T")


def launched_size() -> int:
    """How many processes the launcher says it started (MPICH and Hydra, Open MPI, srun), else 1. Needs no MPI."""
    for variable in ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE"):
        if variable in os.environ:
            return int(os.environ[variable])
    # A batch script sees SLURM_NTASKS too; only srun's tasks have a step. salloc's shell is one: of a single task.
    if any(v in os.environ for v in ("SLURM_STEP_ID", "SLURM_STEPID")):
        return int(os.environ.get("SLURM_STEP_NUM_TASKS") or os.environ.get("SLURM_NTASKS") or 1)
    return 1


def launched_rank() -> int:
    """This process's rank as the launcher says, else 0. Needs no MPI: used to speak once before MPI is initialised."""
    for variable in ("PMI_RANK", "OMPI_COMM_WORLD_RANK"):
        if variable in os.environ:
            return int(os.environ[variable])
    return int(os.environ.get("SLURM_PROCID", 0)) if launched_size() > 1 else 0


_thread = threading.local()


def keep_thread_state() -> None:
    """Lets Python keep what it knows of this thread, where it was called from TensorFlow's, until the process ends.

    Else each call from there makes a thread state, with memory of its own, and gives it back. That takes 15 to 30 us,
    and UCX, which MPICH brings, notes each such piece and forgets none: 140 bytes a call, 45 KB an update of ppo2 on
    MuJoCo.
    """
    if not getattr(_thread, "kept", False):
        ctypes.pythonapi.PyGILState_Ensure()  # never released
        _thread.kept = True


class Comm:
    """One process alone: every collective is the identity. `MpiComm` has the same face over many processes."""

    rank = 0
    size = 1
    local_rank = 0
    local_size = 1
    hosts = 1
    seconds = 0.0  # spent in collectives so far
    waiting: str | None = None  # the collective that this rank is in

    def mean(self, array: np.ndarray) -> np.ndarray:
        """The element-wise mean over ranks: of the same shape and dtype; of numbers that are no floats, float64."""
        return floats(array)

    def sum(self, array: np.ndarray) -> np.ndarray:
        """The element-wise sum over ranks: of the same shape and dtype; of truth values, int64."""
        return numbers(array)

    def gather(self, value: T) -> list[T]:
        """Every rank's `value` (any picklable object), in rank order, on every rank."""
        return [value]

    def broadcast(self, value: T, root: int = 0) -> T:
        """The `value` (any picklable object) of the rank `root` on every rank."""
        return value

    def together(self, act: Callable[[], T], *, root_only: bool = False) -> T | None:
        """Runs `act` on every rank (or on rank 0 alone); if it raised UserError anywhere, raises it everywhere.

        Such an error has `on_all_ranks`. Returns act's result, on rank 0 alone if `root_only` (None elsewhere).
        """
        return act()

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """A block that no rank leaves alone: what is raised in it, but not on all ranks together, ends all of them."""
        try:
            yield
        except BaseException as error:
            self.fail(error)
            raise

    def fail(self, error: BaseException) -> None:
        """Ends all ranks with this rank's exception, unless all raise it together. One process goes on with it."""

    @staticmethod
    def shared(error: UserError) -> UserError:
        """An error that all ranks are about to raise, marked so."""
        error.on_all_ranks = True
        return error

    def check_synced(self, vector: np.ndarray) -> None:
        """Raises RuntimeError on every rank unless `vector` is bitwise equal on all of them."""

    def abort(self, status: int) -> None:
        """Ends every rank at once with this exit status."""
        os._exit(status)


class MpiComm(Comm):
    """MPI's world communicator. Creating it makes uncaught exceptions abort the whole job."""

    def __init__(self) -> None:
        from mpi4py import MPI

        self._mpi, self._world = MPI, MPI.COMM_WORLD
        if MPI.Query_thread() < MPI.THREAD_SERIALIZED:  # compiled updates call Allreduce from TensorFlow's thread
            raise UserError("this MPI library cannot be called from more than one thread; use one built for "
                            "MPI_THREAD_SERIALIZED or MULTIPLE, such as the extra 'mpi' installs")
        self.rank, self.size = self._world.Get_rank(), self._world.Get_size()
        local = self._world.Split_type(MPI.COMM_TYPE_SHARED)
        self.local_rank, self.local_size = local.Get_rank(), local.Get_size()
        self.hosts = len(set(self._world.allgather(socket.gethostname())))
        self._install_hooks()

    def _install_hooks(self) -> None:
        # Without these, one rank dies and the others wait in their next collective for ever.
        sys.excepthook = lambda kind, error, trace: self.abort_with(error)
        threading.excepthook = lambda args: args.exc_type is SystemExit or self.abort_with(args.exc_value)

    def abort_with(self, error: BaseException | None) -> None:
        """Prints the traceback with this rank's number and aborts all ranks; see exit_status."""
        text = "".join(traceback.format_exception(error))
        sys.stderr.write(f"rank {self.rank} of {self.size} failed; all ranks stop\n{text}")
        self.abort(exit_status(error))

    def fail(self, error: BaseException) -> None:
        if getattr(error, "on_all_ranks", False):
            return
        if isinstance(error, UserError):
            sys.stderr.write(f"error on rank {self.rank} of {self.size}: {error}\n")
            self.abort(2)
        else:
            self.abort_with(error)

    def mean(self, array: np.ndarray) -> np.ndarray:
        total = self.sum(floats(array))
        total /= self.size
        return total

    def sum(self, array: np.ndarray) -> np.ndarray:
        array = numbers(array)
        total = np.empty_like(array)
        self._collective("Allreduce", array, total, self._mpi.SUM)
        return total

    def gather(self, value: T) -> list[T]:
        return self._collective("allgather", value)

    def broadcast(self, value: T, root: int = 0) -> T:
        return self._collective("bcast", value, root)

    def _collective(self, name: str, *arguments: Any) -> Any:
        """Calls a collective of MPI's. While it waits for the others, `waiting` tells the watchdog so."""
        keep_thread_state()
        start, self.waiting = time.perf_counter(), name
        result = getattr(self._world, name)(*arguments)
        self.seconds += time.perf_counter() - start
        self.waiting = None
        return result

    def together(self, act: Callable[[], T], *, root_only: bool = False) -> T | None:
        result, complaint = None, None
        if self.rank == 0 or not root_only:
            try:
                result = act()
            except UserError as error:
                complaint = error
        complaints = [c for c in self.gather(complaint and str(complaint)) if c is not None]
        if complaints:
            raise self.shared(UserError(complaints[0])) from complaint
        return result

    def check_synced(self, vector: np.ndarray) -> None:
        digests = self.gather(hashlib.sha256(np.ascontiguousarray(vector).tobytes()).hexdigest()[:16])
        if len(set(digests)) > 1:
            raise RuntimeError(f"the parameters differ between ranks: digests {digests}")

    def abort(self, status: int) -> None:
        for stream in (sys.stdout, sys.stderr):
            wait_for_reader(stream)
        self._world.Abort(status)
        os._exit(status)  # MPICH's Abort comes back, and the launcher takes a moment to end this process


def numbers(array: np.ndarray) -> np.ndarray:
    """An array as MPI can add it: in one piece, truth values as int64."""
    array = np.asarray(array, order="C")
    return array.astype(np.int64) if array.dtype == bool else array


def floats(array: np.ndarray) -> np.ndarray:
    """An array as its mean is: numbers that are no floats as float64."""
    array = np.asarray(array)
    return array if array.dtype.kind == "f" else array.astype(np.float64)


def exit_status(error: BaseException | None) -> int:
    """The exit status of a process which ends by an exception: Python's, but never 0, since it ends early."""
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        return error.code or 1
    return 130 if isinstance(error, KeyboardInterrupt) else 1


def wait_for_reader(stream: TextIO, seconds: float = 5.0) -> None:
    """Waits until what was written to a pipe has been read from it, or so long: a launcher that ends its processes does
    not read on.
    """
    with contextlib.suppress(ImportError, OSError, ValueError):  # no pipe, or not to be known here
        stream.flush()
        import fcntl
        import termios

        pipe, end = stream.fileno(), time.monotonic() + seconds
        while stat.S_ISFIFO(os.fstat(pipe).st_mode) and time.monotonic() < end:
            if not any(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4))):
                return
            time.sleep(0.001)


_comm: Comm | None = None


def get_comm() -> Comm:
    """The processes of this run, made at the first call. One process without a launcher needs no mpi4py.

    Raises UserError when the launcher started N processes but MPI does not know about them: they would train N
    unrelated copies.
    """
    global _comm
    if _comm is None:
        _comm = _connect()
    return _comm


def _connect() -> Comm:
    size = launched_size()
    if size == 1:
        return Comm()
    try:
        comm = MpiComm()
    except ImportError as error:
        raise UserError(
            f"the launcher started {size} processes, but mpi4py cannot be imported here ({error}), so they would train "
            f"{size} unrelated copies; install it with: pip install 'baselines-lite[mpi]'"
        ) from None
    if comm.size != size:
        raise UserError(
            f"the launcher started {size} processes, but MPI sees {comm.size}, so they would train {size} unrelated "
            "copies; use the mpirun of the MPI that mpi4py was built for (with the extra 'mpi': .venv/bin/mpirun)"
        )
    return comm
