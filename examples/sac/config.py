"""SAC's hyperparameters and presets: table 1 of the paper where a preset does not say otherwise."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from baselines_lite.common.experiment.config import ReplayConfig
from baselines_lite.common.system.options import option
from baselines_lite.common.system.schedules import Schedule


@dataclasses.dataclass(frozen=True)
class Config(ReplayConfig):
    """Beside ReplayConfig's options. Counts are per rank unless they say otherwise."""

    nsteps: int = option(50, "steps of every environment between two rounds of training", low=1)
    train_steps: int = option(50, "gradient steps in a round", low=1)
    batch_size: int = 256
    lr: Schedule = option(Schedule("3e-4"), "Adam's learning rate", low=0)
    tau: float = option(0.005, "target networks move this share of the way at each gradient step", above=0, high=1)
    target_entropy: float | None = option(None, "nats that the temperature keeps the policy's entropy at, of actions "
                                          "in [-1, 1] (default: minus the number of their components)")
    network: str = option("mlp", "network of pi and of both Q: mlp, or module:function of one's own")


PRESETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "default": {
        "all": dict(sizes="256,256", activation="relu"),
        "classic_control": dict(sizes="64,64", lr="1e-3"),
        "mujoco": dict(learning_starts=10_000),
    },
}
