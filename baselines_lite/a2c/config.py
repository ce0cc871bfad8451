"""A2C's hyperparameters and presets. No TensorFlow here: `--help` reads this file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from baselines_lite.common.experiment.config import ActorCriticConfig
from baselines_lite.common.system.options import option
from baselines_lite.common.system.schedules import Schedule


@dataclasses.dataclass(frozen=True)
class Config(ActorCriticConfig):
    """Counts are per rank; schedules go by the global steps."""

    one_optimizer: ClassVar[bool] = True

    num_env: int = 16
    nsteps: int = 5
    lam: float = option(1.0, "GAE's lambda; 1: n-step returns", low=0, high=1)
    lr: Schedule = option(Schedule("linear:7e-4"), "RMSProp's learning rate", low=0)
    rms_decay: float = option(0.99, "decay of RMSProp's mean square", low=0, below=1)
    rms_epsilon: float = option(1e-5, "RMSProp's epsilon, inside the root", above=0)
    ent_coef: float = 0.01
    vf_coef: float = option(0.5, "weight of the value loss", low=0)
    max_grad_norm: float | None = option(0.5, "the averaged gradient is scaled down to this norm; none: off", above=0)
    value_network: str = "shared"


_PHYSICS = dict(num_env=8, nsteps=16, lam=0.95, lr="linear:1e-3", ent_coef=0.0, value_network="copy",
                logstd_init=-0.5, normalize_observations=True, normalize_rewards=True)

PRESETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "default": {
        "all": dict(log_interval=100),
        "classic_control": dict(num_env=8, nsteps=8, lam=0.95, lr="linear:3e-3", ent_coef=0.0, value_network="copy",
                                normalize_observations=True, normalize_rewards=True),
        "mujoco": dict(_PHYSICS, lr="linear:2e-3"),
        "box2d": dict(_PHYSICS, nsteps=32, gamma=0.995, lr="linear:3e-3"),
        "atari": dict(network="cnn", lr="linear:2e-3"),
    },
    "baselines": {
        "all": dict(num_env=1, time_limit="terminal", stagger=False, statistics="rank", streams="same",
                    action_scale=False),
        "mujoco": dict(normalize_observations=True, normalize_rewards=True),
        "atari": dict(network="cnn", num_env=16),
    },
}
