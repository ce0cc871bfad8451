"""DDPG's hyperparameters and presets. No TensorFlow here: `--help` reads this file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from baselines_lite.common.experiment.config import ReplayConfig
from baselines_lite.common.system.errors import UserError
from baselines_lite.common.system.options import option
from baselines_lite.common.system.schedules import Schedule


@dataclasses.dataclass(frozen=True)
class Config(ReplayConfig):
    """Counts are per rank unless they say otherwise; schedules go by the global steps."""

    nsteps: int = option(100, "steps of every environment between two rounds of training", low=1)
    train_steps: int = option(100, "gradient steps in a round", low=1)
    batch_size: int = 100
    learning_starts: int = option(1000, "environment steps, over all ranks, with random actions and no training", low=1)
    tau: float = option(0.005, "target networks move this share of the way at each gradient step", above=0, high=1)
    # A faster policy runs ahead of values that have hardly been learned, to where tanh is flat, and may stay there.
    actor_lr: Schedule = option(Schedule("1e-4"), "Adam's learning rate for the policy", low=0)
    critic_lr: Schedule = option(Schedule("1e-3"), "Adam's learning rate for the action values", low=0)
    critic_l2_reg: float = option(0.0, "weight of half the squared hidden weights of the action values", low=0)
    max_grad_norm: float | None = option(None, "the averaged gradient is scaled down to this norm; none: off", above=0)
    noise: str = option("gaussian", "exploration: 'gaussian' or 'ou' (correlated in time) noise on the actions, "
                        "'adaptive-param' noise on the policy's parameters, or 'none'",
                        choices=("gaussian", "ou", "adaptive-param", "none"))
    noise_std: float = option(0.1, "deviation of the noise, in units of half the actions' range", low=0)
    network: str = option("mlp", "network of both: mlp, or module:function of one's own")
    normalize_observations: bool = option(False, "normalise observations by running statistics, when they are drawn")
    normalize_returns: bool = option(False, "learn action values in units of their running deviation")
    popart: bool = option(False, "with normalize_returns: keep what is predicted when those statistics change")

    def check(self) -> None:
        super().check()
        if self.popart and not self.normalize_returns:
            raise UserError("popart=true needs normalize_returns=true")


PRESETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "default": {
        "all": dict(sizes="256,256", activation="relu"),
        "mujoco": dict(learning_starts=10_000, sizes="400,300"),
    },
    "baselines": {
        "all": dict(nsteps=100, train_steps=50, batch_size=64, learning_starts=100, tau=0.01,
                    critic_l2_reg=1e-2, noise="adaptive-param", noise_std=0.2, normalize_observations=True,
                    time_limit="terminal"),
    },
}
