"""The way into the command line: from its first moment on, Ctrl-C ends it with one line. Loads nothing that takes time.

Not by KeyboardInterrupt: raised inside an import, that comes out as a long traceback or another exception, or is lost.
Only a run in training has something to bring to an end, and has handlers of its own meanwhile: see Experiment.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from types import FrameType

from baselines_lite.common.system.folders import here, remove_unused

STATUS = 128 + signal.SIGINT

_stderr: int | None = None  # the terminal, also while others' messages are kept away from it: see tf_setup.quiet


def console(*first: str) -> None:
    """The installed command `baselines-lite`, run.py and `python -m baselines_lite.run`; `first` go before the rest.

    Modules of the current folder can be named, from wherever the command is started.
    """
    global _stderr
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else a shell had it ignored: a background job
        with contextlib.suppress(OSError):  # there is none
            _stderr = os.dup(2)
        signal.signal(signal.SIGINT, end_at_once)
    prepare_streams()
    if (folder := here()) and folder not in map(os.path.abspath, sys.path):
        sys.path.insert(0, folder)
    from baselines_lite.command_line import main

    try:
        status = main([*first, *sys.argv[1:]])
        sys.stdout.flush()
    except KeyboardInterrupt:  # by a second Ctrl-C in training
        end_at_once()
    except BrokenPipeError:
        if reader_is_there():  # another pipe: an environment's, say
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        status = 0
    sys.exit(status)


def prepare_streams() -> None:
    """Lets whatever is printed be no error: where a stream is closed, and letters that it has not."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (until the process ends)
        with contextlib.suppress(AttributeError):  # a stream of another kind
            getattr(sys, name).reconfigure(errors="backslashreplace")


def reader_is_there() -> bool:
    """Whether somebody reads what is printed, who may have seen enough: `--help | head`."""
    with contextlib.suppress(AttributeError, OSError):  # where nothing can tell
        poll = select.poll()
        poll.register(1, 0)
        return not any(event & select.POLLERR for _, event in poll.poll(0))
    return False


def end_at_once(number: int = signal.SIGINT, frame: FrameType | None = None) -> None:
    """Ends this process with one line, and with it its workers; under mpirun that ends the other ranks too."""
    try:
        with contextlib.suppress(KeyError, AttributeError):  # they are not loaded, or not wholly
            for worker in sys.modules["multiprocessing"].active_children():
                worker.kill()
            sys.modules["multiprocessing.util"]._exit_function()  # else its tracker complains of leaked semaphores
        remove_unused()
        if _stderr is not None:
            os.write(_stderr, b"stopped by Ctrl-C\n")
    finally:
        os._exit(STATUS)


if __name__ == "__main__":
    console()
