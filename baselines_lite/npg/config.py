"""NPG's hyperparameters and presets. No TensorFlow here: `--help` reads this file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from baselines_lite.common.experiment.config import NaturalConfig
from baselines_lite.common.system.errors import UserError
from baselines_lite.common.system.options import option
from baselines_lite.common.system.schedules import Schedule

EXPLICIT_LIMIT = 6_000  # policy parameters: a float32 matrix of 6,000 x 6,000 takes 144 MB, solving it about 1 GB


@dataclasses.dataclass(frozen=True)
class Config(NaturalConfig):
    """Beside NaturalConfig's options. Counts are per rank; schedules go by the global steps."""

    step_kl: Schedule = option(Schedule("0.01"), "KL(old || new) of a step by its quadratic model, nats: delta",
                               above=0)
    solver: str = option("cg", "'cg': conjugate gradient on Fisher-vector products; 'explicit': the Fisher matrix, for "
                         f"up to {EXPLICIT_LIMIT:,} policy parameters", choices=("cg", "explicit"))
    damping: float = option(0.1, "added to the Fisher matrix's diagonal before it is inverted", low=0)

    def check_policy(self, policy: Any) -> None:
        """Raises UserError for a policy that the natural gradient cannot step."""
        super().check_policy(policy)
        size = sum(int(v.shape.num_elements()) for v in policy.pi_variables)
        if self.solver == "explicit" and size > EXPLICIT_LIMIT:
            raise UserError(f"solver=explicit builds a matrix of {size:,} x {size:,} for this policy; the limit is "
                            f"{EXPLICIT_LIMIT:,}. Use solver=cg or a smaller network")


_PHYSICS = dict(num_env=8, nsteps=256, logstd_init=-0.5, normalize_observations=True, normalize_rewards=True)

PRESETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "default": {
        "classic_control": dict(num_env=8, nsteps=128, step_kl="linear:0.01", vf_minibatches=8,
                                normalize_observations=True, normalize_rewards=True),
        "mujoco": _PHYSICS,
        "box2d": _PHYSICS,
        "atari": dict(network="cnn_small", num_env=8, nsteps=64, vf_minibatches=8, fisher_every=2),
    },
}
