"""PPO2 learns. The chain takes seconds; the rest is marked slow."""

import numpy as np
import pytest

from baselines_lite import evaluate, load, ppo2

TOY = "baselines_lite.toy_envs:"
QUIET = {"print_interval": 1e9}


@pytest.mark.parametrize(("time_limit", "goes_on"), [("bootstrap", True), ("terminal", False)])
def test_a_time_limit_is_not_a_death(time_limit, goes_on):
    """Counting truncation as death inverts the best action at the chain's first positions; bootstrapping does not."""
    policy = ppo2.learn(f"{TOY}Chain-v0", 40_000, gamma=0.9, lam=0.9, lr="linear:3e-3", num_env=8, nsteps=64, seed=0,
                        time_limit=time_limit, **QUIET)
    first = policy.step(np.arange(4), deterministic=True)[0]
    assert (first == int(goes_on)).all()
    assert (policy.step(np.array([6, 7]), deterministic=True)[0] == 1).all()  # within the limit's reach: go on


@pytest.mark.slow
@pytest.mark.parametrize(("env", "threshold"), [("IdentityDiscrete-v0", 0.9), ("IdentityBox-v0", -0.1)])
def test_identity(env, threshold, tmp_path):
    policy = ppo2.learn(TOY + env, 30_000, gamma=0.9, lr="linear:1e-3", num_env=1, nsteps=64, seed=0, **QUIET)
    policy.save(str(tmp_path / "model"))
    returns = evaluate(load(str(tmp_path / "model")), TOY + env, 100, deterministic=False)
    assert returns.mean() / 100 > threshold


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_cartpole_is_solved_within_100k_steps(seed, tmp_path):
    policy = ppo2.learn("CartPole-v1", 100_000, seed=seed, log_path=str(tmp_path), **QUIET)
    assert evaluate(policy, "CartPole-v1", 20).mean() >= 475
    last = (tmp_path / "progress.csv").read_text().splitlines()[-1].split(",")
    assert float(last[4]) >= 475  # eprewmean: the last 100 training episodes
