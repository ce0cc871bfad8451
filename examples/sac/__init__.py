"""Soft actor-critic, as an example of an algorithm of one's own that learns from a replay buffer.

    python run.py --alg=examples.sac --env=Pendulum-v1 --num_timesteps=2e4
    mpirun -np 2 python run.py --alg=examples.sac --env=Pendulum-v1 --num_timesteps=2e4
"""

from .config import PRESETS, Config
from .sac import learn

__all__ = ["PRESETS", "Config", "learn"]
