"""PPO1's hyperparameters and presets. No TensorFlow here: `--help` reads this file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from baselines_lite.common.experiment.config import ActorCriticConfig, check_minibatches, sequence_length
from baselines_lite.common.system.options import option
from baselines_lite.common.system.schedules import Schedule


@dataclasses.dataclass(frozen=True)
class Config(ActorCriticConfig):
    """Counts are per rank; schedules go by the global steps."""

    one_optimizer: ClassVar[bool] = True

    objective: str = option("clip", "'clip' the ratio, or penalise the KL: 'kl_adaptive' or 'kl_fixed'",
                            choices=("clip", "kl_adaptive", "kl_fixed"))
    cliprange: Schedule = option(Schedule("0.2"), "objective=clip: the ratio is kept in [1 - cliprange, 1 + cliprange]",
                                 above=0)
    kl_coef: float = option(1.0, "objective=kl_...: weight of KL(old || new), for kl_adaptive the first", above=0)
    target_kl: float = option(0.01, "objective=kl_adaptive: the KL that the weight is adapted to, nats", above=0)
    nminibatches: int = option(32, "minibatches per epoch; must divide num_env x nsteps", low=1)
    noptepochs: int = option(10, "passes over each batch", low=1)
    lr: Schedule = option(Schedule("linear:3e-4"), "Adam's learning rate", low=0)
    ent_coef: float = option(0.0, "weight of the entropy bonus", low=0)
    vf_coef: float = option(1.0, "weight of the value loss", low=0)
    max_grad_norm: float | None = option(None, "the averaged gradient is scaled down to this norm; none: off", above=0)
    adam_epsilon: float = option(1e-5, "Adam's epsilon", above=0)
    seq_len: int | None = option(None, "recurrent networks: steps per training sequence; must divide nsteps (default: "
                                 "the longest of which nminibatches can share out a batch)", low=1)

    def check(self) -> None:
        """Raises UserError for values that do not go together."""
        check_minibatches(self)

    def sequence_length(self) -> int:
        """Steps per training sequence of a recurrent network."""
        return sequence_length(self)


PRESETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "default": {
        "classic_control": dict(num_env=8, nsteps=32, nminibatches=4, noptepochs=10, lr="linear:1e-3",
                                normalize_rewards=True),
        "mujoco": dict(num_env=1, nsteps=2048, logstd_init=-1.0, normalize_observations=True, normalize_rewards=True),
        "atari": dict(network="cnn", value_network="shared", num_env=8, nsteps=128, nminibatches=4, noptepochs=4,
                      lr="linear:2.5e-4", cliprange="0.1", ent_coef=0.01, max_grad_norm=0.5),
    },
    "baselines": {
        "all": dict(num_env=1, nsteps=2048, time_limit="terminal", statistics="rank", streams="same",
                    action_scale=False),
        "mujoco": dict(normalize_observations=True),
        "atari": dict(network="cnn", value_network="shared", nsteps=256, nminibatches=4, noptepochs=4,
                      lr="linear:1e-3", ent_coef=0.01),
    },
}
