"""Deep Q-learning's hyperparameters and presets. No TensorFlow here: `--help` reads this file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from baselines_lite.common.experiment.config import ReplayConfig
from baselines_lite.common.networks.options import Sizes
from baselines_lite.common.system.errors import UserError
from baselines_lite.common.system.options import option
from baselines_lite.common.system.schedules import Schedule


@dataclasses.dataclass(frozen=True)
class Config(ReplayConfig):
    """Counts are per rank unless they say otherwise; schedules and epsilon go by the global steps."""

    uses_budget: ClassVar[bool] = True  # epsilon and beta

    nsteps: int = option(100, "steps of every environment between two rows of the log; a multiple of train_freq", low=1)
    train_freq: int = option(1, "steps of every environment between two gradient steps", low=1)
    buffer_size: int = 50_000
    target_network_update_freq: int = option(500, "environment steps, over all ranks, between two copies of the "
                                             "network to the target network", low=1)
    lr: Schedule = option(Schedule("5e-4"), "Adam's learning rate", low=0)
    adam_epsilon: float = option(1e-8, "Adam's epsilon", above=0)
    max_grad_norm: float | None = option(10.0, "the averaged gradient is scaled down to this norm; none: off", above=0)
    exploration_fraction: float = option(0.1, "share of the budget over which epsilon falls", above=0, high=1)
    exploration_initial_eps: float = option(1.0, "probability of a random action at the start", low=0, high=1)
    exploration_final_eps: float = option(0.02, "probability of a random action afterwards", low=0, high=1)
    double_q: bool = option(True, "the network chooses the action that the target network values")
    hiddens: Sizes | None = option(Sizes("256"), "units of the layers between network and action values; none: no such")
    dueling: bool = option(True, "separate streams for the state's value and the actions' advantages")
    prioritized_replay: bool = option(False, "draw transitions with large errors more often")
    prioritized_replay_alpha: float = option(0.6, "how much more often: 0 not at all, 1 in proportion", low=0, high=1)
    prioritized_replay_beta0: float = option(0.4, "how far weights make up for that at first; 1 at the end", low=0,
                                             high=1)
    prioritized_replay_eps: float = option(1e-6, "added to every error", above=0)
    param_noise: bool = option(False, "explore by noise on the network's parameters instead of random actions")

    def check(self) -> None:
        super().check()
        if self.nsteps % self.train_freq:
            raise UserError(f"nsteps={self.nsteps} must be a multiple of train_freq={self.train_freq}")


PRESETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "default": {
        # reward_scale: keeps errors within Huber's quadratic part. Beyond it the loss looks for the median of what may
        # follow, which leaves out the few transitions in which an episode ends, and values can grow without bound.
        # gamma: a fall 200 steps ahead, as of a cart that drifts to the edge, costs 0.99^200 = 13% of a value; with
        # 0.995 it is 37%.
        "classic_control": dict(num_hidden=256, activation="relu", hiddens=None, dueling=False,
                                lr="double_linear_con:1e-3", batch_size=128, buffer_size=100_000, train_freq=2,
                                target_network_update_freq=250, gamma=0.995, reward_scale=0.01,
                                prioritized_replay=True, exploration_final_eps=0.01),
        "atari": dict(network="cnn", hiddens=None, dueling=True, lr="1e-4", train_freq=4, nsteps=1000,
                      buffer_size=1_000_000, learning_starts=10_000, target_network_update_freq=1000,
                      exploration_final_eps=0.01, prioritized_replay=True),
    },
    "baselines": {
        "all": dict(gamma=1.0, time_limit="terminal"),
        "atari": dict(network="conv_only", lr="1e-4", train_freq=4, nsteps=1000, buffer_size=10_000, gamma=0.99,
                      learning_starts=10_000, target_network_update_freq=1000, exploration_fraction=0.1,
                      exploration_final_eps=0.01, prioritized_replay=True),
    },
}
