"""VPG's hyperparameters and presets. No TensorFlow here: `--help` reads this file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from baselines_lite.common.experiment.config import ActorCriticConfig, check_value_minibatches
from baselines_lite.common.system.options import option
from baselines_lite.common.system.schedules import Schedule


@dataclasses.dataclass(frozen=True)
class Config(ActorCriticConfig):
    """Counts are per rank; schedules go by the global steps."""

    lam: float = option(0.97, "GAE's lambda", low=0, high=1)
    lr: Schedule = option(Schedule("3e-4"), "Adam's learning rate for the policy", low=0)
    ent_coef: float = option(0.0, "weight of the entropy bonus", low=0)
    vf_lr: Schedule = option(Schedule("1e-3"), "Adam's learning rate for the value", low=0)
    vf_iters: int = option(10, "passes over each batch to fit the value", low=1)
    vf_minibatches: int = option(8, "minibatches per pass", low=1)

    def check(self) -> None:
        """Raises UserError for values that do not go together."""
        check_value_minibatches(self)


PRESETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "default": {
        "classic_control": dict(num_env=8, nsteps=250, lr="1e-2", normalize_rewards=True),
        "mujoco": dict(num_env=8, nsteps=256, logstd_init=-1.0, normalize_observations=True, normalize_rewards=True),
        "atari": dict(network="cnn_small", num_env=8, nsteps=64, ent_coef=0.01),
    },
}
