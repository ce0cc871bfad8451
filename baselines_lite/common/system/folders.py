"""Folders and files that belong to one run: named for it alone, and locked while it writes to them."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from baselines_lite.common.system.errors import UserError

try:
    import fcntl
except ImportError:  # Windows: there nobody is kept away
    fcntl = None


def here() -> str:
    """The current folder; "" where it has been deleted."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return ""


def now() -> str:
    """The time of day as part of a folder's name."""
    return f"{datetime.datetime.now():%Y%m%d-%H%M%S}"


def own_folder(path: str) -> str:
    """Makes a folder of that name, or with a number behind it where there is one already; its name.

    However many processes ask for one name at once, each gets a folder of its own. Raises UserError where none can be
    made.
    """
    for number in itertools.count(1):
        name = path if number == 1 else f"{path}-{number}"
        try:
            os.makedirs(name)
            return name
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(f"cannot make the folder {name!r}: {error.strerror}") from None


def writable(folder: Path) -> bool:
    """Whether files can be made in a folder, which is made if need be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


@contextlib.contextmanager
def held(path: Path, what: str) -> Iterator[None]:
    """Within the block, this run alone has the lock file `path`. Raises UserError, about `what`, where another has it.

    The lock dies with its process, however that ends; the file by itself means nothing. On Windows, and on file systems
    without such locks, nobody is kept away. Raises OSError where the file cannot be made.
    """
    file = acquire(path, what)
    try:
        yield
    finally:
        if file is not None:
            with contextlib.suppress(OSError):
                path.unlink()  # before it is unlocked: who opens it from now on finds that it is not the file there
            file.close()


def acquire(path: Path, what: str) -> TextIO | None:
    """The lock file, open and locked; None where there are no locks. As `held`."""
    while fcntl is not None:
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with file:
                file.seek(0)
                holder = file.read(200)
            raise UserError(f"{what} is in use by another run{f' ({holder})' if holder else ''}; wait for its end, or "
                            "give another place") from None
        except OSError:  # not on this file system
            file.close()
            path.unlink(missing_ok=True)
            return None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                file.truncate(0)
                file.write(f"process {os.getpid()} on {socket.gethostname()}")
                file.flush()
                return file
        file.close()  # its holder has removed it meanwhile
    return None


def move_aside(folder: Path, names: Sequence[str]) -> Path | None:
    """Moves an earlier run's files into previous-1, previous-2, ... so that a new run never overwrites them.

    The folder where they are now; None if there were none.
    """
    old = [folder / name for name in dict.fromkeys(names) if os.path.lexists(folder / name)]
    if not old:
        return None
    number = next(n for n in itertools.count(1) if not os.path.lexists(folder / f"previous-{n}"))
    aside = folder / f"previous-{number}"
    aside.mkdir()
    for file in old:
        file.rename(aside / file.name)
    return aside


unused: list[str] = []  # folders that were made for a run and that nothing has been written to yet


def remove_unused() -> None:
    """Removes the folders that are still empty, and those around them that then are.

    Also around one that is gone: the rank that removed it may have been ended before it could go on.
    """
    while unused:
        folder = Path(unused.pop())
        for empty in (folder, *folder.parents[:-1]):
            try:
                empty.rmdir()
            except FileNotFoundError:
                continue
            except OSError:  # something is in it
                break
