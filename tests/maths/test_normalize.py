"""Running statistics: any number of ranks, also uneven and empty ones, sees what one rank with all data sees."""

import numpy as np
import pytest

from baselines_lite.common.policies.normalize import Moments, Normalize, merge_over_ranks
from baselines_lite.common.system.mpi import Comm


class FakeRanks(Comm):
    """Answers `gather` as if the other ranks had sent these values."""

    def __init__(self, values):
        self.values = values

    def gather(self, value):
        return self.values


@pytest.mark.parametrize("sizes", [(50,), (7, 43), (0, 30, 20), (50, 0, 0)])
def test_ranks_merge_to_the_moments_of_all_samples(sizes):
    data = np.random.default_rng(0).normal(3, 5, size=(sum(sizes), 4))
    per_rank = [Moments.of(part) for part in np.split(data, np.cumsum(sizes)[:-1])]
    merged = merge_over_ranks(per_rank[0], FakeRanks(per_rank))
    assert merged.count == 50
    np.testing.assert_allclose(merged.mean, data.mean(0), rtol=1e-12)
    np.testing.assert_allclose(merged.var, data.var(0), rtol=1e-12)


def test_history_is_counted_once_whatever_the_number_of_ranks():
    normalize = Normalize((2,))
    for _ in range(5):
        part = Moments.of(np.random.default_rng(0).normal(size=(10, 2)))
        normalize.obs.merge(merge_over_ranks(part, FakeRanks([part] * 3)))
    assert normalize.obs.count == 5 * 30
    normalize.obs.merge(merge_over_ranks(Moments((2,)), FakeRanks([Moments((2,))] * 3)))
    assert normalize.obs.count == 5 * 30


def test_a_large_mean_does_not_eat_the_variance():
    data = 1e8 + np.random.default_rng(0).normal(size=(1000, 1))
    moments = Moments((1,))
    for part in np.split(data, 10):
        moments.merge(Moments.of(part))
    np.testing.assert_allclose(moments.var, data.var(0), rtol=1e-6)
    normalize = Normalize((1,))
    normalize.obs = moments
    normalize.freeze()
    assert abs(normalize.normalize_obs(data).std() - 1) < 1e-3


def test_observations_are_centred_scaled_and_clipped():
    normalize = Normalize((1,), clip=2.0)
    rows = np.array([[1.0], [3.0], [5.0], [7.0]])
    normalize.update(rows[:, None], np.zeros((4, 1)), np.zeros((4, 1), bool), Comm())
    expected = np.clip((np.array([[4.0], [100.0], [-100.0]]) - 4) / np.sqrt(5), -2, 2)
    np.testing.assert_allclose(normalize.normalize_obs(np.array([[4.0], [100.0], [-100.0]])), expected, rtol=1e-6)


def test_normalising_does_not_move_the_statistics():
    normalize = Normalize((1,), rewards=True)
    before = normalize.statistics()
    normalize.normalize_obs(np.array([[4.0]]))
    normalize.normalize_rewards(np.array([4.0]))
    assert all(np.array_equal(before[k], v) for k, v in normalize.statistics().items())


def test_reward_scale_is_the_deviation_of_the_discounted_sum_across_rollouts():
    rng = np.random.default_rng(0)
    rewards, dones = rng.normal(size=(30, 2)), rng.random((30, 2)) < 0.2
    normalize = Normalize(None, rewards=True, gamma=0.9)
    for part in (slice(0, 11), slice(11, 30)):
        normalize.update(None, rewards[part], dones[part], Comm())
    sums, running = [], np.zeros(2)
    for reward, done in zip(rewards, dones):
        running = 0.9 * running + reward
        sums.append(running)
        running = running * (1 - done)
    np.testing.assert_allclose(normalize.normalize_rewards(rewards), rewards / np.sqrt(np.var(sums) + 1e-8))


def test_state_restores():
    normalize = Normalize((3,), rewards=True)
    rng = np.random.default_rng(0)
    normalize.update(rng.normal(size=(5, 2, 3)), rng.normal(size=(5, 2)), np.zeros((5, 2), bool), Comm())
    other = Normalize((3,), rewards=True)
    other.load(normalize.statistics())
    obs = rng.normal(size=(4, 3))
    np.testing.assert_array_equal(other.normalize_obs(obs), normalize.normalize_obs(obs))
