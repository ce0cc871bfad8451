"""ACKTR's hyperparameters and presets. No TensorFlow here: `--help` reads this file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from baselines_lite.common.experiment.config import ActorCriticConfig
from baselines_lite.common.networks.options import FEED_FORWARD
from baselines_lite.common.system.options import option
from baselines_lite.common.system.schedules import Schedule


@dataclasses.dataclass(frozen=True)
class Config(ActorCriticConfig):
    """Counts are per rank; schedules go by the global steps."""

    num_env: int = 32
    nsteps: int = 20
    network: str = option("mlp", FEED_FORWARD)
    lam: float = option(1.0, "GAE's lambda; 1: n-step returns", low=0, high=1)
    standardize_advs: bool = option(False, "standardise advantages over the batch")
    lr: Schedule = option(Schedule("linear:0.25"), "largest step along the natural gradient", low=0)
    kfac_clip: float = option(0.001, "bound on about twice the KL of an update, of each network", above=0)
    momentum: float = option(0.9, "momentum of the natural gradient", low=0, below=1)
    damping: float = option(0.01, "damping of the Fisher matrix", above=0)
    stats_decay: float = option(0.99, "decay of the running Kronecker factors", low=0, below=1)
    stats_every: int = option(1, "updates between two statistics", low=1)
    stats_examples: int | None = option(None, "examples of a batch that the statistics use; none: all", low=1)
    stats_positions: int | None = option(None, "output positions of a convolution that they use, drawn anew each time; "
                                         "none: all", low=1)
    inverse_every: int = option(10, "updates between two inversions of the factors", low=1)
    asynchronous: bool = option(False, "invert in a background thread, and use the result half of inverse_every "
                                "updates later")
    cold_iter: int = option(10, "first updates: plain gradient steps while statistics gather", low=0)
    ent_coef: float = 0.01
    vf_coef: float = option(0.5, "weight of the value loss", low=0)
    vf_fisher_coef: float = option(1.0, "weight of the value head in the Fisher matrix", above=0)
    max_grad_norm: float | None = option(0.5, "in the first updates the averaged gradient is scaled down to this norm; "
                                         "none: off", above=0)
    value_network: str = "shared"

    def check_policy(self, policy: Any) -> None:
        """Raises UserError for a network that KFAC does not support."""
        from baselines_lite.common.optim.kfac import layers_of

        layers_of(policy)


# Without momentum and with a rate that the clip always cuts down, each step is as long as the clip allows.
_PHYSICS = dict(num_env=8, nsteps=128, lr="1.0", momentum=0.0, kfac_clip=0.01, stats_decay=0.95, inverse_every=1,
                cold_iter=1, lam=0.97, standardize_advs=True, ent_coef=0.0, logstd_init=-0.5,
                value_network="copy", normalize_observations=True, normalize_rewards=True)

PRESETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "default": {
        "classic_control": dict(num_env=8, value_network="copy", normalize_observations=True, normalize_rewards=True),
        "mujoco": _PHYSICS,
        "box2d": _PHYSICS,
        # Statistics come every fourth update: 0.96 of 25 of them reaches as far back as 0.99 of 100.
        "atari": dict(network="cnn", vf_coef=0.25, kfac_clip=0.002, damping=0.001, stats_decay=0.96, stats_every=4,
                      stats_examples=160, stats_positions=16, inverse_every=50),
    },
    "baselines": {
        "all": dict(num_env=1, nsteps=20, time_limit="terminal", stagger=False, statistics="rank", streams="same",
                    inverse_every=1, asynchronous=True, vf_fisher_coef=4.0, action_scale=False),
        "mujoco": dict(nsteps=2500, value_network="copy", normalize_observations=True, normalize_rewards=True),
        "atari": dict(network="cnn", num_env=32),
    },
}
