"""Random streams: one NumPy generator per (seed, rank, purpose), independent of all others."""

from __future__ import annotations

import zlib

import numpy as np


def stream(seed: int, purpose: str, rank: int = 0) -> np.random.Generator:
    """The generator for a purpose ("noise", "shuffle", ...) on a rank. The same arguments give the same numbers."""
    return np.random.default_rng(np.random.SeedSequence([seed, rank, zlib.crc32(purpose.encode())]))


def env_seeds(seed: int, rank: int, num_env: int, purpose: str = "environments") -> list[int]:
    """A distinct reset seed for each environment of a rank."""
    return [int(s) for s in stream(seed, purpose, rank).integers(2**31, size=num_env)]
