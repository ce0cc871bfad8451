"""Environments and rollouts: what is an episode, what follows a step, and what the environment is given."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from baselines_lite import UserError, evaluate, ppo2, registry
from baselines_lite.common.envs.episode_stats import EpisodeTracker, EpisodeWindow
from baselines_lite.common.envs.make import family_of, find_spec
from baselines_lite.common.envs.vec_env import make_vec_env
from baselines_lite.common.policies.actor_critic import ActorCritic
from baselines_lite.common.sampling.collector import Collector
from baselines_lite.common.sampling.rollout import flatten
from baselines_lite.common.system.mpi import Comm


class Count(gym.Env):
    """Observes the step number within the episode; ends by death at step 3 (odd episodes) or is cut at step 4."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float64)
    action_space = gym.spaces.Box(-1, 1, (1,))

    def __init__(self):
        self.episode, self.actions = 0, []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.t = self.episode + 1, 0
        return np.zeros(1), {}

    def step(self, action):
        self.t += 1
        self.actions.append(float(action[0]))
        dead = self.episode % 2 == 1 and self.t == 3
        return np.array([float(self.t)]), float(self.t), dead, self.t == 4, {}


def collect(nsteps, normalize=False):
    env = Count()
    venv = make_vec_env(env)
    policy = ActorCritic(venv.single_observation_space, venv.single_action_space, seed=0,
                         normalize_observations=normalize, logstd_init=1.0)
    return env, policy, Collector(venv, policy, nsteps, Comm()), nsteps


def test_death_and_time_limit_in_one_rollout():
    """Episodes of 3 (death), 4 (cut), 3, ...: 9 steps see both, and end inside an episode."""
    _, policy, collector, _ = collect(9)
    rollout = collector.collect()
    np.testing.assert_array_equal(rollout.obs[:, 0, 0], [0, 1, 2, 0, 1, 2, 3, 0, 1])
    np.testing.assert_array_equal(np.flatnonzero(rollout.terminated), [2])
    np.testing.assert_array_equal(np.flatnonzero(rollout.dones), [2, 6])
    np.testing.assert_allclose(rollout.values[:, 0], policy.values(flatten(rollout.obs)), atol=1e-6)
    # What follows step 6 is the final observation 4, not the reset's 0; what follows step 8 is 2.
    followers = np.array([[1], [2], [0], [1], [2], [3], [4], [1], [2]], np.float32)
    np.testing.assert_allclose(rollout.next_values[:, 0], policy.values(followers), atol=1e-6)
    assert [(e.r, e.l) for e in rollout.episodes] == [(6, 3), (10, 4)]
    second = collector.collect()
    assert [(e.r, e.l) for e in second.episodes] == [(6, 3), (10, 4), (6, 3)]  # the first began in the last rollout


def test_environment_gets_clipped_actions_and_logp_is_of_the_unclipped():
    env, policy, collector, n = collect(200)
    rollout = collector.collect()
    assert np.abs(rollout.actions).max() > 1
    np.testing.assert_allclose(env.actions[-n:], np.clip(rollout.actions[:, 0, 0], -1, 1))
    _, logp = policy.values_and_logp(flatten(rollout.obs), flatten(rollout.actions))
    np.testing.assert_allclose(policy.logp(rollout.heads, rollout.actions)[:, 0], logp, rtol=1e-5)


def test_statistics_are_frozen_during_a_rollout_and_count_every_observation_once():
    _, policy, collector, n = collect(50, normalize=True)
    assert policy.normalize.obs.count == Collector.WARM_UP
    mean, var = policy.normalize.obs.mean.copy(), policy.normalize.obs.var.copy()
    rollout = collector.collect()
    raw = rollout.obs * np.sqrt(var + 1e-8) + mean
    np.testing.assert_allclose(raw, np.round(raw), atol=1e-5)  # one and the same transformation throughout
    assert policy.normalize.obs.count == Collector.WARM_UP + n


def test_episode_tracker_against_a_naive_one():
    rng = np.random.default_rng(0)
    late = np.array([True, False, True])
    tracker, naive, seen = EpisodeTracker(3, late), [[0.0, 0] for _ in range(3)], []
    for _ in range(5):
        rewards, dones = rng.normal(size=(20, 3)), rng.random((20, 3)) < 0.2
        cut = dones & (rng.random((20, 3)) < 0.8)
        expected, steps = [], []
        for t in range(20):
            for n in range(3):
                naive[n][0] += rewards[t, n]
                naive[n][1] += 1
                if dones[t, n]:
                    if not (late[n] and cut[t, n]):  # a first episode that is cut short is no whole one
                        expected.append(tuple(naive[n]))
                        steps.append(t)
                    naive[n], late[n] = [0.0, 0], False
        found = tracker.finished(rewards, dones, cut, 10.0, 12.0)
        np.testing.assert_allclose([(e.r, e.l) for e in found], expected)
        assert [e.step for e in found] == steps
        assert all(10 < e.t <= 12 for e in found)
        seen += found
    window = EpisodeWindow()
    assert window.eprewmean is None
    window.add(seen)
    assert window.full == (len(seen) >= 100) and window.count == len(seen)
    np.testing.assert_allclose(window.eprewmean, np.mean([e.r for e in seen[-100:]]))


@pytest.mark.parametrize(("env_id", "family"), [("CartPole-v1", "classic_control"), ("HalfCheetah-v5", "mujoco"),
                                                ("FrozenLake-v1", "toy_text"), ("PongNoFrameskip-v4", "atari"),
                                                ("baselines_lite.common.envs.toy_envs:Chain-v0", "other")])
def test_families(env_id, family):
    assert family_of(find_spec(env_id)) == family


def test_a_vector_environment_brings_its_own_number_of_environments():
    venv = SyncVectorEnv([lambda: gym.make("CartPole-v1")] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    policy = ppo2.learn(venv, 128, nsteps=32, nminibatches=1, noptepochs=1, print_interval=1e9)
    assert policy.info["config"]["num_env"] == 2
    with pytest.raises(UserError, match="num_env=4"):
        ppo2.learn(venv, 1280, num_env=4)


def test_an_env_object_and_a_factory_train():
    options = dict(nsteps=32, nminibatches=1, noptepochs=1, print_interval=1e9)
    ppo2.learn(gym.make("CartPole-v1"), 64, num_env=1, **options)
    ppo2.learn(lambda: gym.make("CartPole-v1"), 128, num_env=2, **options)


def test_two_learns_with_one_seed_agree_in_one_process():
    options = dict(num_env=2, nsteps=32, normalize_observations=True, print_interval=1e9, seed=3)
    first, second = (ppo2.learn("Pendulum-v1", 640, **options) for _ in range(2))
    for a, b in zip(first.trainable_variables, second.trainable_variables):
        np.testing.assert_array_equal(a, b)
    other = ppo2.learn("Pendulum-v1", 640, **{**options, "seed": 4})
    assert not np.array_equal(first.pi_head.w, other.pi_head.w)


@pytest.mark.parametrize(("name", "options"), [
    ("acktr", dict(nsteps=32, momentum=0.9, inverse_every=2, cold_iter=2)),
    ("acer", dict(nsteps=16, replay_start=64, buffer_size=320)),
    ("deepq", dict(nsteps=16, learning_starts=64, prioritized_replay=True)),
])
def test_two_learns_with_one_seed_agree_in_what_they_sample_too(name, options):
    """Examples of statistics, values' draws, replayed transitions and segments, numbers of replays."""
    first, second = (registry.find(name).learn("CartPole-v1", 640, num_env=2, print_interval=1e9, seed=3, **options)
                     for _ in range(2))
    for a, b in zip(first.trainable_variables, second.trainable_variables):
        np.testing.assert_array_equal(a, b)


def test_evaluation_begins_where_training_never_did():
    """Training's first resets and the resets that follow within its environments, 8 of them, with one seed."""
    starts = []

    class Seen(gym.Wrapper):
        def reset(self, **options):
            obs, info = super().reset(**options)
            starts.append(obs.tobytes())
            return obs, info

    def make():
        return Seen(gym.make("CartPole-v1"))

    policy = ActorCritic(make().observation_space, make().action_space)
    Collector(make_vec_env(make, 8), policy, 200, Comm(), seed=3).collect()
    trained, starts[:] = set(starts), []
    evaluate(policy, make, episodes=32, seed=3)
    assert len(trained) > 32 and len(set(starts)) >= 32 and not trained & set(starts)


def test_evaluate_counts_whole_episodes_and_leaves_statistics_alone():
    policy = ppo2.learn("CartPole-v1", 640, num_env=2, nsteps=32, normalize_observations=True, print_interval=1e9)
    count = policy.normalize.obs.count
    returns = evaluate(policy, "CartPole-v1", episodes=11)
    assert returns.shape == (11,) and (returns >= 8).all()
    np.testing.assert_array_equal(returns, evaluate(policy, "CartPole-v1", episodes=11))
    assert policy.normalize.obs.count == count
    with pytest.raises(UserError, match="was made for the space"):
        evaluate(policy, "Acrobot-v1")
