"""A watch over a rank: one that comes no further says what it waits for and ends, and the launcher ends the others.

It runs on its own rank alone and makes no call of MPI's. Signs of life are calls of `beat` and the end of a collective.
A rank inside a collective waits for the others: it has twice the time, so that the one they wait for is named first.
Looks without a sign of life are counted, not seconds: a process that was suspended meanwhile is not to blame.
"""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from types import FrameType

from baselines_lite.common.system.mpi import Comm, wait_for_reader
from baselines_lite.common.system.stop_signals import STOP, children_without

LOOKS = 20  # within the time that a rank may take
STATUS = 1  # of a process that its watchdog ends

# A process beside this one: where Python's lock is held, by an environment in C, no thread of Python's can look. It is
# written to at each look; after so many without, it has this process say where it is, and aborts it.
BESIDE = """
import os, select, signal, sys
pid, looks, every, text = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
silent = 0
while silent < looks:
    if not select.select([0], [], [], every)[0]:
        silent += 1
    elif os.read(0, 4096):
        silent = 0
    else:
        sys.exit()
if os.getppid() == pid:
    os.write(2, text.encode())
    os.kill(pid, signal.SIGABRT)
"""

_beats = _pauses = 0
_pausing = threading.Lock()


def beat() -> None:
    """A sign of life: a step of the environments, an update."""
    global _beats
    _beats += 1


@contextlib.contextmanager
def paused() -> Iterator[None]:
    """A block whose time does not count: compiling, writing."""
    global _pauses
    with _pausing:
        _pauses += 1
    try:
        yield
    finally:
        beat()
        with _pausing:
            _pauses -= 1


class Watchdog:
    """Within its block, a rank that gives no sign of life for so many `seconds` is ended; 0: none is.

    `place` names the environment that runs in some frames (of the thread that entered the block, innermost last), or
    says None.
    """

    def __init__(self, comm: Comm, seconds: float, place: Callable[[list[FrameType]], str | None]) -> None:
        self.comm, self.seconds, self._place = comm, min(seconds, threading.TIMEOUT_MAX), place
        self._name = f"rank {comm.rank} of {comm.size}" if comm.size > 1 else "the run"
        self._left = threading.Event()

    def __enter__(self) -> Watchdog:
        if self.seconds:
            self._watched, self._beside = threading.get_ident(), self._start_beside()
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.seconds:
            self._left.set()
            self._thread.join()
            if self._beside is not None:
                self._beside.kill()
                self._beside.communicate()

    def _watch(self) -> None:
        looks, last = 0, None
        while not self._left.wait(self.seconds / LOOKS):
            with contextlib.suppress(OSError, AttributeError):  # it was ended, or could not be started
                self._beside.stdin.write(b".")
            life = waits, *_ = self.comm.waiting, self.comm.seconds, _beats
            looks, last = 0 if _pauses or life != last else looks + 1, life
            if looks and looks % (LOOKS * (2 if waits else 1)) == 0:
                self.strike()

    def _start_beside(self) -> subprocess.Popen | None:
        """Starts the process that has a look whether this thread has; None where it cannot be started.

        Nor on Windows, where `select` knows no pipes.
        """
        if os.name == "nt":
            return None
        if not faulthandler.is_enabled():
            faulthandler.enable(2)  # so that SIGABRT brings the stack
        text = (f"{self._name} has come no further for {self.seconds:g} s (stall_timeout), in a call that holds "
                "Python's lock. It is ended\n")
        command = [sys.executable, "-I", "-S", "-c", BESIDE, str(os.getpid()), str(LOOKS + 2),
                   str(self.seconds / LOOKS), text]
        with children_without(STOP), contextlib.suppress(OSError):
            return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, bufsize=0)
        return None

    def strike(self) -> None:
        """Says what the rank waits for and where it is, and ends it with its children, of which some may hang."""
        try:
            sys.stderr.write(self.report())
            wait_for_reader(sys.stderr)
            for child in multiprocessing.active_children():
                child.kill()
        finally:
            os._exit(STATUS)

    def report(self) -> str:
        """What the rank waits for, and its stack."""
        stack = [frame for frame, _ in traceback.walk_stack(sys._current_frames()[self._watched])][::-1]
        if self.comm.waiting:
            told = (f"{self._name} has waited for other ranks in {self.comm.waiting} for {2 * self.seconds:g} s, twice "
                    "the stall_timeout, and none was found to stall: has the network or a host been lost?")
        else:
            told = (f"{self._name} has come no further for {self.seconds:g} s (stall_timeout): it waits for "
                    f"{self._place(stack) or 'what its stack shows'}")
            told += "; the other ranks wait for it" if self.comm.size > 1 else ""
        return f"{told}. It is ended\n{''.join(traceback.format_stack(stack[-1]))}"
