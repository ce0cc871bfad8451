"""SIGINT, SIGTERM and SIGUSR1 in training: the first one asks a run to stop, a second one ends it at once."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from types import FrameType

# Slurm sends SIGUSR1, or another one, some time before a job's time is up. Windows has none.
STOP = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))
GRACE = 5  # seconds that the main thread has to end after the second one


class StopSignals:
    """Takes the signals STOP between `listen` and `restore`: `number` is the first one that came, 0 if none did.

    At once `notice` is called with it, by a thread: handlers wait until a compiled update has returned to Python, and
    what came meanwhile is one call for them. But each signal is written to a socket as it comes, where it stays.
    The second one raises KeyboardInterrupt or, if it is not SIGINT, does what it did before. Where a call that hangs
    keeps the main thread from that, the process is ended; but not by a SIGINT that Python's own handler would take, for
    somebody who catches KeyboardInterrupt. A thread other than the main one cannot take signals: there nothing is done.
    """

    def __init__(self, notice: Callable[[signal.Signals], None]) -> None:
        self.number, self._notice = 0, notice
        self._handlers: dict[int, object] = {}
        self._answered = threading.Event()  # the second signal, or there will be none

    def listen(self) -> None:
        """Takes signals from now on."""
        if threading.current_thread() is not threading.main_thread():
            return
        self._came, self._write = socket.socketpair()
        self._write.setblocking(False)  # as set_wakeup_fd demands
        self._wakeup = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        self._handlers = {number: signal.signal(number, self._handle) for number in STOP}
        self._thread = threading.Thread(target=self._tell, daemon=True)
        self._thread.start()

    def _tell(self) -> None:
        while came := self._came.recv(1, socket.MSG_PEEK):
            if came[0] in STOP:
                self._notice(signal.Signals(came[0]))
                break
            self._came.recv(1)  # another signal, which somebody else handles
        while came and not self._answered.wait(0.1):
            number = next(iter(self._later()), 0)
            hard = number and self._handlers.get(number) is not signal.default_int_handler
            if hard and not self._answered.wait(GRACE):
                os._exit(128 + number)

    def _later(self) -> list[int]:
        """The signals that came after the first one."""
        return [came for came in self._came.recv(1024, socket.MSG_PEEK) if came in STOP][1:]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.number = self.number or number
        if number in self._later():  # else this is still the first one's call, whatever has come meanwhile
            self._answered.set()
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            signal.signal(number, self._handlers[number])
            signal.raise_signal(number)

    def restore(self) -> None:
        """Gives signals back to who had them before; the second time nothing."""
        if self._handlers:
            while self._handlers:
                signal.signal(*self._handlers.popitem())
            signal.set_wakeup_fd(self._wakeup)
            self._write.close()
            self._answered.set()
            self._thread.join()
            self._came.close()


@contextlib.contextmanager
def children_without(numbers: Iterable[int]) -> Iterator[None]:
    """Within the block, signals are held back from this thread; a process that is started in it never sees one."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_to_parent() -> None:
    """In a child that was started so: it ignores the signals STOP, but what it starts can be ended by them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends that one to all
    others = set(STOP) - {signal.SIGINT}
    for number in others:
        signal.signal(number, lambda number, frame: None)  # SIG_IGN would be inherited
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, others)
