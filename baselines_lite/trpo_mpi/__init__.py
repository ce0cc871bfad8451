"""Trust region policy optimisation; see README.md. `learn` loads TensorFlow when it is first asked for."""

from __future__ import annotations

from typing import Any

from baselines_lite.common.system import tf_setup

from .config import PRESETS, Config

__all__ = ["PRESETS", "Config", "learn"]


def __getattr__(name: str) -> Any:
    if name == "learn":
        tf_setup.load()
        from .trpo_mpi import learn

        return learn
    raise AttributeError(name)
