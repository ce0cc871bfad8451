"""Steps that each rank takes by itself before the ranks meet in the middle: an Allreduce per epoch, not per step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from baselines_lite.common.networks.flat import flatten, get_flat, set_flat, unflatten
from baselines_lite.common.optim.losses import Batch
from baselines_lite.common.optim.minibatch import Minibatches
from baselines_lite.common.optim.mpi_optimizer import MpiOptimizer
from baselines_lite.common.policies.actor_critic import ActorCritic
from baselines_lite.common.system.compiled import Compiled
from baselines_lite.common.system.mpi import Comm


class LocalMinibatches(Minibatches):
    """Minibatches of which each rank takes those of an epoch alone, in one compiled call as a single process does.

    Then parameters and the optimizer's moments become their means over `comm`'s ranks (local SGD: Lin et al. 2020,
    1808.07217, algorithm 1 with H the minibatches of an epoch). `optimizer` is one of a rank alone: its comm is Comm().
    """

    def __init__(self, policy: ActorCritic, optimizer: MpiOptimizer, *arguments: Any, comm: Comm, epochs: int) -> None:
        super().__init__(policy, optimizer, *arguments)
        self.comm, self.epochs = comm, epochs
        self.averaged = [*optimizer.variables, *tf.nest.flatten([getattr(optimizer, name) for name in optimizer.STATE])]
        self._meet = Compiled(self.meet, xla=False)
        set_flat(optimizer.variables, comm.broadcast(get_flat(optimizer.variables)))

    def __call__(self, data: Batch, indices: np.ndarray, lr: float, constants: Sequence[float] = (),
                 per_minibatch: Mapping[str, np.ndarray] | None = None) -> dict[str, float]:
        """As Minibatches'; `indices` [epochs * count, size]. Returns the stats' means over minibatches and ranks."""
        found = []
        for epoch in np.split(np.arange(len(indices)), self.epochs):
            each = {name: array[epoch] for name, array in (per_minibatch or {}).items()}
            found.append(super().__call__(data, indices[epoch], lr, constants, each))
            self._meet()
        means = self.comm.mean(np.mean([[stats[name] for name in self.stats] for stats in found], axis=0))
        return dict(zip(self.stats, means.tolist(), strict=True))

    def meet(self) -> None:
        """Parameters and moments become their means over ranks, in one Allreduce."""
        own = flatten(self.averaged)
        mean = tf.ensure_shape(tf.numpy_function(self.comm.mean, [own], own.dtype), own.shape)
        for variable, part in zip(self.averaged, unflatten(mean, self.averaged), strict=True):
            variable.assign(part)
