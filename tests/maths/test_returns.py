"""GAE against the double sum, with terminated, truncated and running environments side by side."""

from types import SimpleNamespace

import numpy as np
import pytest

from baselines_lite.common.sampling.returns import explained_variance, gae, generalized_advantages, minibatch_moments
from baselines_lite.common.system.mpi import Comm

GAMMA, LAM = 0.97, 0.9


def random_rollout(T=12, N=4, seed=0):
    rng = np.random.default_rng(seed)
    terminated, truncated = rng.random((T, N)) < 0.15, rng.random((T, N)) < 0.15
    terminated[:, 3] = truncated[:, 3] = False  # one environment that just runs
    values, next_values = rng.normal(size=(2, T, N))
    dones = terminated | truncated
    # Where the episode goes on, the next value is the next step's value; elsewhere it is the final observation's.
    next_values[:-1] = np.where(dones[:-1], next_values[:-1], values[1:])
    return rng.normal(size=(T, N)), values, next_values, terminated, dones


def double_sum(rewards, values, next_values, terminated, dones):
    """A_t = sum over k of (gamma lam)^k delta_{t+k}, up to the end of the episode, from the definition."""
    T, N = rewards.shape
    advs = np.zeros((T, N))
    for n in range(N):
        for t in range(T):
            weight = 1.0
            for k in range(t, T):
                after = 0.0 if terminated[k, n] else next_values[k, n]
                advs[t, n] += weight * (rewards[k, n] + GAMMA * after - values[k, n])
                weight *= GAMMA * LAM
                if dones[k, n]:
                    break
    return advs


@pytest.mark.parametrize("seed", range(5))
def test_recursion_equals_double_sum(seed):
    arrays = random_rollout(seed=seed)
    advs, returns = generalized_advantages(*arrays, GAMMA, LAM)
    np.testing.assert_allclose(advs, double_sum(*arrays), atol=1e-12)
    np.testing.assert_allclose(returns, advs + arrays[1], atol=1e-12)
    names = ("rewards", "values", "next_values", "terminated", "dones")
    rollout = SimpleNamespace(**dict(zip(names, arrays, strict=True)))
    np.testing.assert_array_equal(gae(rollout, GAMMA, LAM), (advs, returns))


def test_lambda_one_is_the_n_step_return():
    rewards, values, next_values, terminated, dones = random_rollout()
    _, returns = generalized_advantages(rewards, values, next_values, terminated, dones, GAMMA, 1.0)
    expected = np.zeros_like(rewards)
    for t in reversed(range(len(rewards))):
        tail = expected[t + 1] if t + 1 < len(rewards) else next_values[t]
        follow = np.where(dones[t], next_values[t], tail)
        expected[t] = rewards[t] + GAMMA * np.where(terminated[t], 0.0, follow)
    np.testing.assert_allclose(returns, expected, atol=1e-12)


def test_lambda_zero_is_the_td_error():
    rewards, values, next_values, terminated, dones = random_rollout()
    advs, _ = generalized_advantages(rewards, values, next_values, terminated, dones, GAMMA, 0.0)
    np.testing.assert_allclose(advs, rewards + GAMMA * np.where(terminated, 0, next_values) - values, atol=1e-12)


def test_a_segment_cut_in_two_with_a_bootstrap_changes_only_the_tail_of_the_trace():
    rewards, values, next_values, terminated, dones = random_rollout(T=10, seed=3)
    dones[4] = True  # every episode ends at step 4: the halves are independent
    whole, _ = generalized_advantages(rewards, values, next_values, terminated, dones, GAMMA, LAM)
    arrays = rewards, values, next_values, terminated, dones
    halves = [generalized_advantages(*(a[part] for a in arrays), GAMMA, LAM)[0]
              for part in (slice(0, 5), slice(5, 10))]
    np.testing.assert_allclose(whole, np.concatenate(halves), atol=1e-12)


def test_reward_one_for_ever_is_worth_one_over_one_minus_gamma():
    """A task without end that a time limit cuts every 5 steps: the true value is 10, and GAE must leave it alone."""
    T, gamma = 40, 0.9
    value = np.full((T, 1), 1 / (1 - gamma))
    dones = np.zeros((T, 1), bool)
    dones[4::5] = True
    never = np.zeros_like(dones)
    advs, returns = generalized_advantages(np.ones((T, 1)), value, value, never, dones, gamma, 0.95)
    np.testing.assert_allclose(advs, 0, atol=1e-12)
    np.testing.assert_allclose(returns, value)
    naive, _ = generalized_advantages(np.ones((T, 1)), value, value, dones, dones, gamma, 0.95)
    assert naive.min() < -5  # counting the time limit as death would punish every fifth step


def test_float32_in_float32_out():
    arrays = [a.astype(np.float32) if a.dtype == float else a for a in random_rollout()]
    advs, returns = generalized_advantages(*arrays, GAMMA, LAM)
    assert advs.dtype == returns.dtype == np.float32


def test_explained_variance():
    returns = np.random.default_rng(0).normal(size=100)
    assert explained_variance(returns, returns) == 1
    assert abs(explained_variance(np.full(100, 7.0), returns)) < 1e-12
    assert explained_variance(-returns, returns) < 0
    assert np.isnan(explained_variance(returns, np.ones(100)))


def test_minibatch_moments():
    rng = np.random.default_rng(0)
    advs, indices = 1e6 + rng.normal(size=24), rng.permutation(24).reshape(4, 6)
    mean, std = minibatch_moments(advs, indices, Comm())
    np.testing.assert_allclose(mean, advs[indices].mean(1))
    np.testing.assert_allclose(std, advs[indices].std(1) + 1e-8, rtol=1e-8)
    equal = np.full(24, 3.0)
    assert np.isfinite((equal - mean[0]) / minibatch_moments(equal, indices, Comm())[1][0]).all()
