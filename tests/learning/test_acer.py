"""ACER learns. The chain takes seconds; the rest is marked slow."""

import numpy as np
import pytest

from baselines_lite import evaluate, load
from baselines_lite.acer import learn

TOY = "baselines_lite.toy_envs:"
QUIET = {"print_interval": 1e9}


@pytest.mark.parametrize(("time_limit", "goes_on"), [("bootstrap", True), ("terminal", False)])
def test_a_time_limit_is_not_a_death(time_limit, goes_on):
    """Counting truncation as death inverts the best action at the chain's first positions; bootstrapping does not."""
    policy = learn(f"{TOY}Chain-v0", 40_000, gamma=0.9, lr="linear:3e-3", num_env=8, replay_start=200, seed=0,
                   time_limit=time_limit, **QUIET)
    first = policy.step(np.arange(4), deterministic=True)[0]
    assert (first == int(goes_on)).all()
    assert (policy.step(np.array([6, 7]), deterministic=True)[0] == 1).all()  # within the limit's reach: go on


@pytest.mark.slow
@pytest.mark.parametrize(("env", "steps", "threshold", "options"), [
    ("IdentityDiscrete-v0", 30_000, 90, dict(num_env=1)),
    ("FixedSequence-v0", 50_000, 3.5, dict(num_env=2, network="lstm", lr="linear:1e-2"))])
def test_identity_and_sequence(env, steps, threshold, options, tmp_path):
    policy = learn(TOY + env, steps, gamma=0.9, replay_start=200, seed=0, **options, **QUIET)
    policy.save(str(tmp_path / "model"))
    assert evaluate(load(str(tmp_path / "model")), TOY + env, 100, deterministic=False).mean() > threshold


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_cartpole_is_learned_within_300k_steps(seed, tmp_path):
    learn("CartPole-v1", 300_000, seed=seed, log_path=str(tmp_path), **QUIET)
    last = (tmp_path / "progress.csv").read_text().splitlines()[-1].split(",")
    assert float(last[4]) >= 450  # eprewmean: the last 100 training episodes
