"""MPI-parallel reinforcement learning in the style of OpenAI Baselines, on TensorFlow 2.

    from baselines_lite import ppo2, load
    policy = ppo2.learn("CartPole-v1", total_timesteps=100_000, seed=0)
    policy.save("cartpole.safetensors")
    policy = load("cartpole.safetensors")

Importing the package loads neither TensorFlow nor MPI; they come with the first `learn` or `load`. TensorFlow is quiet
from then on, wherever it is imported. The algorithms are there as attributes too: `baselines_lite.ppo2`.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from baselines_lite import registry
from baselines_lite.common.system import tf_setup
from baselines_lite.common.system.errors import UserError
from baselines_lite.common.system.version import __version__

if TYPE_CHECKING:
    from numpy import ndarray

    from baselines_lite.common.policies.actor_critic import ActorCritic

# Set it to 0 (or pass --verbose) to see TensorFlow's start-up messages.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

__all__ = ["UserError", "__version__", "evaluate", "load"]


def load(path: str, network: str | None = None) -> ActorCritic:
    """The policy saved at `path`: weights, statistics and spaces. Raises UserError if it cannot be read.

    No file makes this import a module: where it has a network of one's own, `module:function`, import that module
    first, or name the network here.
    """
    tf_setup.load()
    from baselines_lite.common.policies.model_file import load_policy

    return load_policy(path, network)


def evaluate(policy: ActorCritic, env: Any, episodes: int = 10, deterministic: bool = True, seed: int = 0) -> ndarray:
    """Raw returns [episodes] of `policy` in `env`; see `baselines_lite.common.experiment.evaluation.evaluate`."""
    from baselines_lite.common.experiment.evaluation import evaluate as run_episodes

    return run_episodes(policy, env, episodes, deterministic, seed)


def __getattr__(name: str) -> Any:
    """An algorithm's package, imported when it is first asked for."""
    if name in registry.ALGORITHMS:
        return importlib.import_module(registry.ALGORITHMS[name].module)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *registry.ALGORITHMS})
