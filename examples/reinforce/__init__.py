"""REINFORCE, as an example of an algorithm of one's own; docs/new_algorithm.md explains each line.

    python run.py --alg=examples.reinforce --env=CartPole-v1 --num_timesteps=2e5
    mpirun -np 2 python run.py --alg=examples.reinforce --env=CartPole-v1 --num_timesteps=2e5
"""

from .config import PRESETS, Config
from .reinforce import learn

__all__ = ["PRESETS", "Config", "learn"]
