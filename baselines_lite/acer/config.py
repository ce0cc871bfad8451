"""ACER's hyperparameters and presets. No TensorFlow here: `--help` reads this file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from baselines_lite.common.experiment.config import RolloutConfig
from baselines_lite.common.system.errors import UserError
from baselines_lite.common.system.options import option
from baselines_lite.common.system.schedules import Schedule


@dataclasses.dataclass(frozen=True)
class Config(RolloutConfig):
    """Counts are per rank; schedules go by the global steps."""

    num_env: int = 16
    nsteps: int = option(20, "steps per environment and update; also the length of a replayed segment", low=1)
    lr: Schedule = option(Schedule("linear:7e-4"), "RMSProp's learning rate", low=0)
    rms_decay: float = option(0.99, "decay of RMSProp's mean square", low=0, below=1)
    rms_epsilon: float = option(1e-5, "RMSProp's epsilon, inside the root", above=0)
    ent_coef: float = option(0.01, "weight of the entropy bonus", low=0)
    q_coef: float = option(0.5, "weight of the action values' loss", low=0)
    max_grad_norm: float | None = option(10.0, "the averaged gradient is scaled down to this norm; none: off", above=0)
    value_network: str = option("shared", "'shared': action values are a head on the policy's network, 'copy': on "
                                "their own", choices=("shared", "copy"))
    normalize_observations: bool = option(False, "normalise observations by running statistics, as these "
                                         "were when they came")
    normalize_rewards: bool = option(False, "divide rewards by the running deviation of their discounted sum, as it "
                                     "was when they came")
    replay_ratio: float = option(4.0, "mean number of replayed batches per new one", low=0)
    buffer_size: int = option(50_000, "latest steps that are kept of each environment, in whole segments", low=1)
    replay_start: int = option(10_000, "steps of each environment before the first replay", low=0)
    c: float = option(10.0, "importance weights of the policy's gradient are truncated at c", above=0)
    trust_region: bool = option(True, "keep updates close to the average policy")
    delta: float = option(1.0, "how fast an update may move away from the average policy: bound on k . z", low=0)
    alpha: float = option(0.99, "decay of the average policy, per update", low=0, high=1)

    def check(self) -> None:
        """Raises UserError for values that do not go together."""
        kept = self.buffer_size // self.nsteps * self.nsteps
        if kept < max(self.replay_start, 1):
            raise UserError(f"buffer_size={self.buffer_size} keeps {kept} steps of each environment (segments of "
                            f"nsteps={self.nsteps}); it must keep some, and at least replay_start={self.replay_start}")

    def check_budget(self, steps: int, ranks: int) -> None:
        """Raises UserError if so many steps, whole updates over all ranks, are too few for any replay."""
        first = self.replay_start * self.num_env * ranks
        if self.replay_ratio > 0 and steps < first:
            raise UserError(f"a budget of {steps} steps (num_timesteps, in whole updates) would replay nothing: that "
                            f"begins after replay_start={self.replay_start} steps of each environment, {first} of all. "
                            "Lower replay_start, or give replay_ratio=0")


_CONTROL = dict(num_env=8, value_network="copy", replay_start=1000, ent_coef=0.003, normalize_observations=True,
                normalize_rewards=True)

PRESETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "default": {
        "classic_control": dict(_CONTROL, lr="linear:2e-3"),
        "box2d": dict(_CONTROL, lr="linear:4e-3"),
        "atari": dict(network="cnn", lr="2e-3", max_grad_norm=0.5, replay_start=1000),
    },
    "baselines": {
        "all": dict(num_env=1, time_limit="terminal", stagger=False, streams="same"),
        "atari": dict(network="cnn", lr="7e-4", num_env=16),
    },
}
