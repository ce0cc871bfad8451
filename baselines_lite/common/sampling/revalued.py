"""A rollout with values that are found anew, after the policy has changed."""

from __future__ import annotations

import dataclasses

import numpy as np

from baselines_lite.common.policies.actor_critic import ActorCritic
from baselines_lite.common.sampling.rollout import Rollout, flatten


def revalued(rollout: Rollout, policy: ActorCritic) -> Rollout:
    """A rollout with values by the policy as it is now; of a recurrent one, from the memory that it had then."""
    r, shape, before, after = rollout, rollout.values.shape, (), ()
    if policy.recurrent:
        before = flatten(r.states), flatten(r.firsts)
        after = flatten(r.next_states), np.zeros(r.firsts.size, bool)
    return dataclasses.replace(r, values=policy.values(flatten(r.obs), *before).reshape(shape),
                               next_values=policy.values(flatten(r.next_obs), *after).reshape(shape))
