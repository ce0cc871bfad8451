"""SIGINT and SIGTERM in training: the first one asks a run to stop, a second one ends it at once."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType

STOP = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """Takes SIGINT and SIGTERM between `listen` and `restore`: `number` is the first one that came, 0 if none did.

    At once `notice` is called with it, by a thread: handlers wait until a compiled update has returned to Python, and
    what came meanwhile is one call for them. But each signal is written to a socket as it comes, where it stays.
    The second one raises KeyboardInterrupt or, SIGTERM, does what it did before. A thread other than the main one
    cannot take signals: there nothing is done.
    """

    def __init__(self, notice: Callable[[signal.Signals], None]) -> None:
        self.number, self._notice = 0, notice
        self._handlers: dict[int, object] = {}

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
                return
            self._came.recv(1)  # another signal, which somebody else handles

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.number = self.number or number
        if sum(came in STOP for came in self._came.recv(1024, socket.MSG_PEEK)) > 1:
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
            self._thread.join()
            self._came.close()
