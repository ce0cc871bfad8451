"""REINFORCE's hyperparameters and presets."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from baselines_lite.common.experiment.config import ActorCriticConfig
from baselines_lite.common.system.options import option
from baselines_lite.common.system.schedules import Schedule


@dataclasses.dataclass(frozen=True)
class Config(ActorCriticConfig):
    """Beside ActorCriticConfig's options: each field is a flag, checked by its type and range."""

    lr: Schedule = option(Schedule("1e-2"), "Adam's learning rate", low=0)


PRESETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "default": {"classic_control": dict(num_env=8, nsteps=250)},
}
