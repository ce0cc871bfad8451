"""How much memory a process may still take."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from baselines_lite.common.system.errors import UserError, counted

REST = 1e9  # bytes that a rank takes beside its buffer


def require(nbytes: float, ranks: int, option: str) -> None:
    """Raises UserError if the host has no room for `ranks` processes with a buffer of nbytes each.

    `option` is what the user gave, to be named: "buffer_size=50000".
    """
    needed, free = (nbytes + REST) * ranks, available()
    if needed > free:
        raise UserError(f"{option} needs {needed / 1e9:.1f} GB here, with the rest of {counted(ranks, 'rank')}, but "
                        f"only {free / 1e9:.1f} GB are free; lower it")


def available() -> float:
    """Bytes that can be allocated without swapping: the host's, or the control group's if fewer; inf if unknown."""
    return min([_of_host(), *_of_groups()])


def _of_host() -> float:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return float("inf")


def _of_groups() -> Iterator[float]:
    """What each control group of this process, and each above it, leaves free; of both versions of Linux's groups."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root, names = Path("/sys/fs/cgroup"), ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            root = Path("/sys/fs/cgroup/memory")
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder == root.parent:
                break
            yield _of_group(folder, *names)


def _of_group(folder: Path, limit_name: str, used_name: str, cache_name: str) -> float:
    try:
        limit = (folder / limit_name).read_text().strip()
        used = int((folder / used_name).read_text())
        cache = next(int(line.split()[1]) for line in (folder / "memory.stat").read_text().splitlines()
                     if line.startswith(cache_name))  # given back when memory is wanted
        return float("inf") if limit == "max" else int(limit) - used + cache
    except (OSError, StopIteration, ValueError):
        return float("inf")
