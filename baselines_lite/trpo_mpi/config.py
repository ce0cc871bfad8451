"""TRPO's hyperparameters and presets. No TensorFlow here: `--help` reads this file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from baselines_lite.common.experiment.config import NaturalConfig
from baselines_lite.common.system.options import option


@dataclasses.dataclass(frozen=True)
class Config(NaturalConfig):
    """Beside NaturalConfig's options. Counts are per rank; schedules go by the global steps."""

    fisher_every: int = 5

    max_kl: float = option(0.01, "largest mean KL(old || new) of an update, nats: delta", above=0)
    penalty_coef: float | None = option(None, "penalise the KL with this fixed coefficient instead of bounding it by "
                                        "max_kl; none: bound it", above=0)
    cg_damping: float = option(0.1, "added to the Fisher matrix's diagonal before it is inverted", low=0)
    backtracks: int = option(10, "points that the line search tries", low=1)
    shrink: float = option(0.8, "each is so much nearer than the last", above=0, high=1)
    accept_ratio: float = option(0.1, "least improvement, as a fraction of what the gradient promises", low=0)


_PHYSICS = dict(num_env=8, nsteps=256, logstd_init=-0.5, normalize_observations=True, normalize_rewards=True)

PRESETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "default": {
        "classic_control": dict(num_env=8, nsteps=256, vf_minibatches=8, normalize_observations=True,
                                normalize_rewards=True),
        "mujoco": _PHYSICS,
        "box2d": _PHYSICS,
        "atari": dict(network="cnn_small", num_env=8, nsteps=64, vf_minibatches=8, fisher_every=2, max_kl=0.005),
    },
    "baselines": {
        "all": dict(num_env=1, nsteps=1024, max_kl=0.001, cg_damping=1e-2, lam=1.0, shrink=0.5, accept_ratio=0.0,
                    vf_iters=3, vf_lr="3e-4", vf_minibatches=16, time_limit="terminal", stagger=False,
                    streams="same", action_scale=False),
        "mujoco": dict(num_hidden=32, max_kl=0.01, cg_damping=0.1, lam=0.98, vf_iters=5, vf_lr="1e-3",
                       normalize_observations=True),
        "atari": dict(network="cnn_small", nsteps=512, gamma=0.98, cg_damping=1e-3, vf_lr="1e-4", vf_minibatches=8),
    },
}
