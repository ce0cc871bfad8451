"""A time limit is not a death: for every algorithm, on a chain where taking it for one inverts the best action."""

import numpy as np
import pytest

from baselines_lite import registry

ROLLOUTS = dict(gamma=0.9, num_env=8, nsteps=64)
OPTIONS = {
    "vpg": ROLLOUTS | dict(lam=0.9, lr="1e-2"),
    "npg": ROLLOUTS | dict(lam=0.9),
    "trpo_mpi": ROLLOUTS | dict(lam=0.9),
    "ppo1": ROLLOUTS | dict(lam=0.9, lr="linear:3e-3"),
    "ppo2": ROLLOUTS | dict(lam=0.9, lr="linear:3e-3"),
    "a2c": ROLLOUTS | dict(nsteps=8, lr="linear:1e-2"),
    "acktr": ROLLOUTS | dict(nsteps=16),
    "acer": dict(gamma=0.9, num_env=8, lr="linear:3e-3", replay_start=200),
    # Rewards below 1: of errors above it, Huber's loss finds the median instead of the mean.
    "deepq": dict(gamma=0.9, num_env=8, learning_starts=1000, exploration_fraction=0.5, exploration_final_eps=0.1,
                  reward_scale=0.1),
    # Slow enough an actor not to saturate before the end's value has come back along the road.
    "ddpg": dict(gamma=0.9, num_env=8, nsteps=50, train_steps=100, learning_starts=2000, noise_std=1.0, actor_lr="1e-4",
                 tau=0.05, sizes="64,64"),
}
STEPS = {name: 20_000 for name in OPTIONS} | {"deepq": 10_000, "ddpg": 10_000}


@pytest.mark.parametrize(("name", "time_limit", "goes_on"), [
    *((name, "bootstrap", True) for name in registry.ALGORITHMS),
    *((name, "terminal", False) for name in ("ppo2", "deepq", "ddpg"))])  # so the chain tells the two apart
def test_a_time_limit_is_not_a_death(name, time_limit, goes_on):
    env = f"baselines_lite.common.envs.toy_envs:Chain{'Box' if name == 'ddpg' else ''}-v0"
    policy = registry.find(name).learn(env, STEPS[name], seed=0, time_limit=time_limit, print_interval=1e9,
                                       **OPTIONS[name])
    steps_on = np.ravel(policy.step(np.arange(8), deterministic=True)[0]) > 0
    assert (steps_on[:4] == goes_on).all()
    assert steps_on[6:].all()  # within the limit's reach
