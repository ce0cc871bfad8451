"""What a replay buffer holds after collecting, against what the environments did."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from baselines_lite import UserError, deepq
from baselines_lite.common.atari import AtariGames
from baselines_lite.common.config import AtariOptions
from baselines_lite.common.deterministic_policy import DeterministicPolicy
from baselines_lite.common.mpi import Comm
from baselines_lite.common.q_policy import QPolicy
from baselines_lite.common.replay_buffer import Index, ReplayBuffer
from baselines_lite.common.replay_collector import ReplayCollector, frame_of
from baselines_lite.common.vec_env import find_spec
from baselines_lite.ddpg import ddpg
from tests.plumbing.test_vec_env import MODES, Walk, vector

ACTION = np.zeros((), np.int64)


def at_random(policy, seed=0):
    rng = np.random.default_rng(seed)
    return lambda features, firsts: rng.integers(policy.num_actions, size=len(features))


@pytest.mark.parametrize("cut_is_death", [False, True])
def test_the_three_modes_store_the_same_transitions(cut_is_death):
    found = {}
    for mode in MODES:
        policy = QPolicy(Walk.observation_space, Walk.action_space)
        buffer = ReplayBuffer(600, 3, frame_of(policy.encoder, 1), ACTION)
        collector = ReplayCollector(vector(Walk, mode), policy, buffer, Comm(), seed=4, cut_is_death=cut_is_death)
        for _ in range(20):
            collector.collect(5, at_random(policy))
        index = Index(*(a.ravel() for a in np.meshgrid(np.arange(buffer.filled), np.arange(3))))
        t, usable = buffer[index], buffer._usable[index]
        assert 300 <= usable.sum() <= 302 if mode == AutoresetMode.NEXT_STEP else usable.sum() == 300
        per_env = []
        for n in range(3):  # environments with fewer ends got further in NEXT_STEP mode: compare what all have
            mine = usable & (index.envs == n)
            alive = ~t.terminated[mine]
            next_obs = np.where(alive[:, None], t.next_obs[mine], 0)
            rows = np.column_stack([t.obs[mine], t.rewards[mine], next_obs, t.terminated[mine]])
            per_env.append(rows[:80])
        found[mode] = per_env, [e[:2] for e in sorted(collector.drain().episodes, key=lambda e: (e.t, e.r))]
    for mode in MODES[1:]:
        np.testing.assert_allclose(found[mode][0], found[MODES[0]][0], rtol=1e-6)
    same, disabled = (found[m][1] for m in (AutoresetMode.SAME_STEP, AutoresetMode.DISABLED))
    assert same == disabled and len(same) > 50
    ends = found[MODES[0]][0][0][:, -1]
    assert 0.1 < ends.mean() < 0.5


class Broken(Walk):
    """Every third reward is not a number."""

    def step(self, action):
        obs, reward, *rest = super().step(action)
        self.count = getattr(self, "count", 0) + 1
        return obs, reward if self.count % 3 else float("nan"), *rest


def test_a_reward_that_is_no_number_is_never_trained_on(tmp_path):
    policy = QPolicy(Walk.observation_space, Walk.action_space)
    buffer = ReplayBuffer(100, 1, frame_of(policy.encoder, 1), ACTION)
    venv = SyncVectorEnv([Broken], autoreset_mode=AutoresetMode.SAME_STEP)
    collector = ReplayCollector(venv, policy, buffer, Comm())
    collector.collect(60, at_random(policy))
    assert np.isfinite(buffer[buffer.sample(np.random.default_rng(0), 1000)].rewards).all()
    with pytest.raises(UserError, match="environment 0 of rank 0 gave the reward nan"):
        collector.drain()
    with pytest.raises(UserError, match="gave the reward nan"):
        deepq.learn(Broken, 2000, learning_starts=100, print_interval=1e9, save_path=str(tmp_path / "m"))


def test_raw_vectors_are_stored_and_normalised_as_of_the_time_they_are_drawn():
    policy = DeterministicPolicy(Walk.observation_space, gym.spaces.Box(-1, 1, (1,)), normalize_observations=True)
    buffer = ReplayBuffer(100, 2, frame_of(policy.encoder, 1), np.zeros(1, np.float32))
    venv = vector(lambda: gym.wrappers.TransformAction(Walk(), lambda a: 0, policy.action_space), MODES[0], 2)
    raw, ends, seen, reset, step = [], [], [], venv.reset, venv.step

    def resetting(**options):
        obs, infos = reset(**options)
        raw.append(obs)
        return obs, infos

    def stepping(actions):
        obs, rewards, terminated, truncated, infos = step(actions)
        raw.append(obs.copy())
        ends.append((terminated, truncated, infos.get("final_obs")))
        return obs, rewards, terminated, truncated, infos

    venv.reset, venv.step = resetting, stepping
    moments = policy.normalize.obs
    moments.mean[:], moments.m2[:], moments.count = 1.0, 4.0 * 10, 10
    policy.normalize.freeze()
    collector = ReplayCollector(venv, policy, buffer, Comm())
    collector.collect(30, lambda features, firsts: seen.append(features) or np.zeros((2, 1)))
    stored, cuts = buffer[Index(*(a.ravel() for a in np.meshgrid(np.arange(30), np.arange(2), indexing="ij")))], 0
    np.testing.assert_allclose(stored.obs.reshape(30, 2, -1), raw[:30])
    for t, (terminated, truncated, finals) in enumerate(ends):
        for n in np.flatnonzero(~terminated):
            expected = finals[n] if truncated[n] else raw[t + 1][n]
            np.testing.assert_allclose(stored.next_obs.reshape(30, 2, -1)[t, n], expected)
            cuts += truncated[n]
    assert cuts > 0
    np.testing.assert_allclose(seen, (np.array(raw[:30]) - 1) / 2, rtol=1e-5)

    moments.mean[:], moments.m2[:] = -1.0, 16.0 * 10  # later, more is known
    policy.normalize.freeze()
    drawn = ddpg.draw(buffer, policy, np.random.default_rng(3), 5, 4)
    index = buffer.sample(np.random.default_rng(3), 20)
    same = buffer[index]
    for mine, vectors in ((drawn.obs, same.obs), (drawn.next_obs, same.next_obs)):
        np.testing.assert_allclose(mine, ((vectors + 1) / 4).reshape(5, 4, -1), rtol=1e-5)
    np.testing.assert_array_equal(drawn.rewards, same.rewards.reshape(5, 4))
    np.testing.assert_array_equal(drawn.actions, same.actions.reshape(5, 4, 1))


@pytest.mark.parametrize(("game", "options"), [("Breakout", {}), ("Pong", {"frame_cap": 400})])
def test_atari_frames_stored_once_give_back_what_the_policy_saw(game, options):
    venv = AtariGames(find_spec(f"{game}NoFrameskip-v4"), 2, AtariOptions(**options), 1)
    policy = QPolicy(venv.single_observation_space, venv.single_action_space, network="cnn_small")
    buffer = ReplayBuffer(600, 2, frame_of(policy.encoder, 4), ACTION, stack=4)
    collector, seen, ends = ReplayCollector(venv, policy, buffer, Comm()), [], []
    step = venv.step

    def recording(actions):
        result = step(actions)
        ends.append((result[2], result[3], result[4].get("final_obs"), result[4]["whole_episode_over"]))
        return result

    venv.step = recording
    explore = at_random(policy)
    collector.collect(300, lambda features, firsts: seen.append(features) or explore(features, firsts))
    cuts = 0
    for t in range(299):
        got = buffer[Index(np.full(2, t), np.arange(2))]
        np.testing.assert_array_equal(got.obs, seen[t])
        terminated, truncated, final, _ = ends[t]
        for n in np.flatnonzero(~terminated):
            expected = np.moveaxis(final[n], 0, -1) if truncated[n] else seen[t + 1][n]
            np.testing.assert_array_equal(got.next_obs[n], expected)
            cuts += truncated[n]
    assert cuts >= 4 if game == "Pong" else sum(e[0].sum() for e in ends) > 6
    assert sum(e[3].sum() for e in ends) == len(collector.drain().episodes)  # whole games, not lives
