"""PPO2's hyperparameters and presets. No TensorFlow here: `--help` reads this file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from baselines_lite.common.experiment.config import MinibatchConfig
from baselines_lite.common.system.errors import UserError
from baselines_lite.common.system.options import option
from baselines_lite.common.system.schedules import Schedule


@dataclasses.dataclass(frozen=True)
class Config(MinibatchConfig):
    """Beside MinibatchConfig's options. Counts are per rank; schedules go by the global steps."""

    cliprange: Schedule = option(Schedule("0.2"), "the ratio is kept in [1 - cliprange, 1 + cliprange]", above=0)
    cliprange_vf: Schedule | None = option(None, "the same for the value's change, in units of the reward; none: off",
                                           above=0)
    target_kl: float | None = option(None, "end an update once approxkl exceeds 1.5 times this; none: off", above=0)
    recompute_advs: bool = option(False, "find values, returns and advantages anew before each epoch but the first")
    sync: str = option("step", "ranks average each 'step's gradient; or each steps alone, and parameters are averaged "
                       "after every 'epoch': faster, and another algorithm", choices=("step", "epoch"))
    adv_moments: str = option("global", "minibatch advantages are standardised over all ranks or each rank's own",
                              choices=("global", "rank"))

    @property
    def epochs_at_once(self) -> int:
        """Passes over a batch with the same advantages."""
        return 1 if self.recompute_advs else self.noptepochs

    def check(self) -> None:
        super().check()
        if self.sync == "epoch" and self.target_kl is not None:
            raise UserError("target_kl ends an update on all ranks at the same step, and goes with sync=step only")


# What the original did where ours differs, whatever the environment.
_BASELINES = dict(cliprange_vf="0.2", time_limit="terminal", stagger=False, adv_moments="rank", statistics="rank",
                  streams="same", num_env=1, nsteps=2048, noptepochs=4, nminibatches=4, lr="3e-4",
                  value_network="shared", action_scale=False)

# logstd_init: with 0 HalfCheetah reaches a third of the return, with -1 Swimmer half (benchmarks/README.md).
_PHYSICS = dict(num_env=8, nsteps=256, nminibatches=32, noptepochs=10, lr="linear:3e-4", logstd_init=-0.5,
                normalize_observations=True, normalize_rewards=True)

PRESETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "default": {
        "classic_control": dict(num_env=8, nsteps=32, nminibatches=4, noptepochs=10, lr="linear:1e-3",
                                normalize_observations=True, normalize_rewards=True),
        "mujoco": _PHYSICS,
        "box2d": _PHYSICS,
        "atari": dict(network="cnn", value_network="shared", num_env=8, nsteps=128, nminibatches=4, noptepochs=4,
                      lr="linear:2.5e-4", cliprange="0.1", ent_coef=0.01),
    },
    "baselines": {
        "all": _BASELINES,
        "mujoco": dict(nminibatches=32, noptepochs=10, lr="linear:3e-4", value_network="copy",
                       normalize_observations=True, normalize_rewards=True),
        # As ppo2/run_atari.py had it when the published table was made: eight environments, clipping that narrows too.
        "atari": dict(network="cnn", num_env=8, nsteps=128, lr="linear:2.5e-4", cliprange="linear:0.1",
                      cliprange_vf="linear:0.1", ent_coef=0.01),
    },
}
