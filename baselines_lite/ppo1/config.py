"""PPO1's hyperparameters and presets. No TensorFlow here: `--help` reads this file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from baselines_lite.common.experiment.config import MinibatchConfig
from baselines_lite.common.system.options import option
from baselines_lite.common.system.schedules import Schedule


@dataclasses.dataclass(frozen=True)
class Config(MinibatchConfig):
    """Beside MinibatchConfig's options. Counts are per rank; schedules go by the global steps."""

    nminibatches: int = 32
    noptepochs: int = 10
    vf_coef: float = 1.0
    max_grad_norm: float | None = None

    objective: str = option("clip", "'clip' the ratio, or penalise the KL: 'kl_adaptive' or 'kl_fixed'",
                            choices=("clip", "kl_adaptive", "kl_fixed"))
    cliprange: Schedule = option(Schedule("0.2"), "objective=clip: the ratio is kept in [1 - cliprange, 1 + cliprange]",
                                 above=0)
    kl_coef: float = option(1.0, "objective=kl_...: weight of KL(old || new), for kl_adaptive the first", above=0)
    target_kl: float = option(0.01, "objective=kl_adaptive: the KL that the weight is adapted to, nats", above=0)


_PHYSICS = dict(num_env=1, nsteps=2048, logstd_init=-1.0, normalize_observations=True, normalize_rewards=True)

PRESETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "default": {
        "classic_control": dict(num_env=8, nsteps=32, nminibatches=4, noptepochs=10, lr="linear:1e-3",
                                normalize_observations=True, normalize_rewards=True),
        "mujoco": _PHYSICS,
        "box2d": _PHYSICS,
        "atari": dict(network="cnn", value_network="shared", num_env=8, nsteps=128, nminibatches=4, noptepochs=4,
                      lr="linear:2.5e-4", cliprange="0.1", ent_coef=0.01, max_grad_norm=0.5),
    },
    "baselines": {
        # Its learning rate's multiplier was that of clip_param too.
        "all": dict(num_env=1, nsteps=2048, cliprange="linear:0.2", time_limit="terminal", stagger=False,
                    action_scale=False),
        "mujoco": dict(normalize_observations=True),
        "atari": dict(network="cnn", value_network="shared", nsteps=256, nminibatches=4, noptepochs=4,
                      lr="linear:1e-3", ent_coef=0.01),
    },
}
