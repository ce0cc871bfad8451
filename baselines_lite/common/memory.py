"""How much memory a process may still take."""

from __future__ import annotations

from pathlib import Path


def available() -> float:
    """Bytes that can be allocated without swapping: the host's, or the container's if it has fewer; inf if unknown."""
    return min(_of_host(), _of_container())


def _of_host() -> float:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return float("inf")


def _of_container() -> float:
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text().strip()
        used = int((group / "memory.current").read_text())
        cache = next(int(line.split()[1]) for line in (group / "memory.stat").read_text().splitlines()
                     if line.startswith("inactive_file"))  # given back when memory is wanted
        return float("inf") if limit == "max" else int(limit) - used + cache
    except (OSError, StopIteration, ValueError):
        return float("inf")
