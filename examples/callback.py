"""A callback: stops when the policy has become certain, and keeps figures of one's own.

    python examples/callback.py
"""

from __future__ import annotations

from baselines_lite import ppo2
from baselines_lite.common.experiment.report import AfterUpdate


class UntilCertain:
    """Ends a run once the policy's entropy is below a limit; `entropies` has it by steps."""

    def __init__(self, limit: float) -> None:
        self.limit, self.entropies = limit, {}

    def __call__(self, after: AfterUpdate) -> bool:
        self.entropies[after.total_timesteps] = after.figures["entropy"]
        return after.figures["entropy"] < self.limit


if __name__ == "__main__":
    callback = UntilCertain(limit=0.5)
    ppo2.learn("CartPole-v1", total_timesteps=100_000, callback=callback)
    print(f"the entropy fell from {max(callback.entropies.values()):.2f} to {min(callback.entropies.values()):.2f}")
