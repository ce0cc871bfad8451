"""VPG's hyperparameters and presets. No TensorFlow here: `--help` reads this file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from baselines_lite.common.experiment.config import ValueFitConfig
from baselines_lite.common.system.options import option
from baselines_lite.common.system.schedules import Schedule


@dataclasses.dataclass(frozen=True)
class Config(ValueFitConfig):
    """Beside ValueFitConfig's options. Counts are per rank; schedules go by the global steps."""

    vf_iters: int = 10
    vf_minibatches: int = 8

    lr: Schedule = option(Schedule("3e-4"), "Adam's learning rate for the policy", low=0)


_PHYSICS = dict(num_env=8, nsteps=256, lr="1e-3", logstd_init=-1.0, normalize_observations=True,
                normalize_rewards=True)

PRESETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "default": {
        "classic_control": dict(num_env=8, nsteps=250, lr="1e-2", normalize_observations=True, normalize_rewards=True),
        "mujoco": _PHYSICS,
        "box2d": _PHYSICS,
        "atari": dict(network="cnn_small", num_env=8, nsteps=64, ent_coef=0.01),
    },
}
