"""An MPI script of one's own: the ranks evaluate a policy together, each in episodes of its own.

    mpirun -np 4 python examples/mpi_script.py cartpole.safetensors
"""

from __future__ import annotations

import sys

import numpy as np

from baselines_lite import evaluate, load
from baselines_lite.common.system.mpi import get_comm


def main() -> None:
    """Prints the mean return over all ranks' episodes."""
    comm = get_comm()
    # What one rank reads may fail there alone: `together` has all ranks raise the error.
    policy = comm.together(lambda: load(sys.argv[1]))
    mine = evaluate(policy, policy.info["env"], episodes=5, seed=comm.rank)
    returns = np.concatenate(comm.gather(mine))  # on every rank, in their order
    if comm.rank == 0:
        print(f"mean return {returns.mean():g} over {len(returns)} episodes of {comm.size} ranks")


if __name__ == "__main__":
    main()
