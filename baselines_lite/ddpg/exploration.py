"""How DDPG explores: noise on the actions or on the policy's parameters."""

from __future__ import annotations

import numpy as np

from baselines_lite.common.policies.deterministic_policy import DeterministicPolicy
from baselines_lite.common.policies.parameter_noise import ParameterNoise
from baselines_lite.common.sampling.replay_collector import Explore
from baselines_lite.common.system.mpi import Comm
from baselines_lite.common.system.state import Stateful

from .config import Config


class Gaussian(Stateful):
    """pi(s) + std N(0, 1), independent at each step; with std = 0 no noise."""

    STATE = ("rng",)

    def __init__(self, policy: DeterministicPolicy, std: float, rng: np.random.Generator) -> None:
        self.policy, self.std, self.rng = policy, std, rng

    def at_random(self, features: np.ndarray, firsts: np.ndarray) -> np.ndarray:
        """Actions [N, d] uniform in [-1, 1]."""
        return self.rng.uniform(-1, 1, (len(features), self.policy.num_actions)).astype(np.float32)

    def actor(self) -> Explore:
        """A function from features [N, ...] to actions [N, d] in [-1, 1] with the present weights."""
        pi = self.policy.pi_function()
        return lambda features, firsts: np.clip(pi(features) + self.draw(firsts), -1, 1)

    def draw(self, firsts: np.ndarray) -> np.ndarray:
        """The next noise [N, d]; `firsts` [N] is true where an episode begins."""
        return self.std * self.rng.standard_normal((len(firsts), self.policy.num_actions), np.float32)

    def adapt(self, features: np.ndarray, comm: Comm) -> None:
        """Takes in features [B, ...] of a minibatch after training. Collective."""

    @property
    def figures(self) -> dict[str, float]:
        """What to log."""
        return {}


class OrnsteinUhlenbeck(Gaussian):
    """Noise that drifts: x <- x - theta x dt + std sqrt(dt) N(0, 1), from 0 at the start of each environment's episode.

    Its stationary deviation is std / sqrt(2 theta - theta^2 dt): 1.83 std (Uhlenbeck and Ornstein 1930; constants of
    OpenAI Baselines).
    """

    STATE = ("rng", "_x")

    THETA, DT = 0.15, 0.01

    def __init__(self, policy: DeterministicPolicy, std: float, rng: np.random.Generator) -> None:
        super().__init__(policy, std, rng)
        self._x: np.ndarray | None = None

    def draw(self, firsts: np.ndarray) -> np.ndarray:
        new = self.DT**0.5 * super().draw(firsts)
        x = np.zeros_like(new) if self._x is None else np.where(firsts[:, None], 0, self._x)
        self._x = x - self.THETA * self.DT * x + new
        return self._x


class NoisyParameters(Gaussian):
    """Actions of a policy with noise on its parameters, drawn anew for each round.

    Its strength is kept so that its actions differ from pi's by `std` (root mean square) (1706.01905, appendix C.2).
    """

    STATE = ("rng", "noise")

    def __init__(self, policy: DeterministicPolicy, std: float, rng: np.random.Generator) -> None:
        super().__init__(policy, std, rng)
        self.noise = ParameterNoise(policy, policy.copy(), rng, std, lambda of: of.pi_variables)

    def actor(self) -> Explore:
        self.noise.perturb()
        pi = self.noise.perturbed.pi_function()
        return lambda features, firsts: pi(features)

    def adapt(self, features: np.ndarray, comm: Comm) -> None:
        actions = self.policy.pi_function()(features)

        def gap() -> float:
            gaps = self.noise.perturbed.pi_function()(features) - actions
            return float(np.sqrt(comm.mean(np.array([np.square(gaps).mean()])))[0])

        self.noise.adapt(gap, self.std)

    @property
    def figures(self) -> dict[str, float]:
        return {"param_noise_std": self.noise.std}


def make_exploration(policy: DeterministicPolicy, cfg: Config, rng: np.random.Generator) -> Gaussian:
    """The exploration that a Config names."""
    match cfg.noise:
        case "adaptive-param":
            return NoisyParameters(policy, cfg.noise_std, rng)
        case "ou":
            return OrnsteinUhlenbeck(policy, cfg.noise_std, rng)
        case _:
            return Gaussian(policy, cfg.noise_std if cfg.noise == "gaussian" else 0.0, rng)
