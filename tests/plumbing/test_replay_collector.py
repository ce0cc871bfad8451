"""What a replay buffer holds after collecting, against what the environments did."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorWrapper

from baselines_lite import UserError, ddpg, deepq, registry
from baselines_lite.common.envs.atari import AtariGames
from baselines_lite.common.envs.atari_options import AtariOptions
from baselines_lite.common.envs.make import find_spec
from baselines_lite.common.envs.vec_env import make_vec_env
from baselines_lite.common.policies.deterministic_policy import DeterministicPolicy
from baselines_lite.common.policies.q_policy import QPolicy
from baselines_lite.common.sampling.replay_buffer import Index, ReplayBuffer
from baselines_lite.common.sampling.replay_collector import ReplayCollector, frame_of
from baselines_lite.common.system.mpi import Comm
from baselines_lite.ddpg.ddpg import draw
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


class Counts(gym.Env):
    """Sees 100 times the number of its episode, plus the steps in it; episodes of `length` steps, which die or are cut.
    """

    observation_space, action_space = gym.spaces.Box(0, 1e6, (1,)), gym.spaces.Discrete(2)

    def __init__(self, length, dies):
        self.length, self.dies, self.episodes = length, dies, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episodes, self.t = self.episodes + 1, 0
        return self.see(), {}

    def see(self):
        return np.array([100 * self.episodes + self.t], np.float32)

    def step(self, action):
        self.t += 1
        over = self.t == self.length
        return self.see(), 0.0, over and self.dies, over and not self.dies, {}


@pytest.mark.parametrize("mode", MODES)
def test_the_last_transitions_before_new_episodes_bootstrap_from_their_own_ends(mode):
    """Cut off by the limit at the last step, at the one before, amid an episode; and what died is dead."""
    kinds = ((3, False), (2, False), (9, False), (3, True))
    venv = make_vec_env(SyncVectorEnv([lambda kind=kind: Counts(*kind) for kind in kinds], autoreset_mode=mode))
    policy = QPolicy(venv.single_observation_space, venv.single_action_space)
    buffer = ReplayBuffer(80, 4, frame_of(policy.encoder, 1), ACTION)
    collector = ReplayCollector(venv, policy, buffer, Comm())
    for _ in range(3):
        collector._step(at_random(policy))
    collector.renew("again")
    for _ in range(3):
        collector._step(at_random(policy))
    index = Index(*np.nonzero(buffer._usable[:6]))
    found = buffer[index]
    assert len(found.obs) == (22 if mode == AutoresetMode.NEXT_STEP else 24)
    np.testing.assert_array_equal(found.next_obs[~found.terminated], found.obs[~found.terminated] + 1)
    np.testing.assert_array_equal(np.argwhere(buffer._terminated[:6] & buffer._usable[:6]), [[2, 3], [5, 3]])


class Broken(gym.Wrapper):
    """Its 30th step, or the end of an episode from there on, gives a number that is none."""

    WHAT = ("the reward", "an observation", "a final observation")

    def __init__(self, env, what, number):
        super().__init__(env)
        self.what, self.number, self.count = what, number, 0

    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        self.count += 1
        if self.count >= 30 and self.what == ("a final observation" if truncated else "an observation"):
            (obs["numbers"] if isinstance(obs, dict) else obs)[-1] = self.number
        if self.count == 30 and self.what == "the reward":
            reward = self.number
        return obs, reward, terminated, truncated, info


class Looks(gym.ObservationWrapper):
    """Sees a picture beside the numbers."""

    observation_space = gym.spaces.Dict({"numbers": Walk.observation_space,
                                         "picture": gym.spaces.Box(0, 255, (5, 5, 3), np.uint8)})

    def observation(self, obs):
        return {"numbers": obs, "picture": self.observation_space["picture"].sample()}


@pytest.mark.parametrize(("number", "looks"), [(np.nan, False), (-np.inf, False), (np.nan, True)])
@pytest.mark.parametrize("what", Broken.WHAT)
def test_what_is_no_number_ends_the_collecting_and_is_not_in_the_buffer(what, number, looks):
    wrap = Looks if looks else lambda env: env
    venv = make_vec_env(lambda: Broken(wrap(Walk()), what, number), 2)
    policy = QPolicy(venv.single_observation_space, Walk.action_space, network="cnn" if looks else "mlp",
                     network_options={"convs": "2@3/2", "num_hidden": 8} if looks else {}, hiddens=None)
    buffer = ReplayBuffer(200, 2, frame_of(policy.encoder, 1), ACTION)
    collector = ReplayCollector(venv, policy, buffer, Comm(), seed=1)
    steps = [collector.collect(20, at_random(policy)) for _ in range(5)]
    assert steps[0] == 20 and 10 <= steps[1] <= 20 and sum(steps[2:]) == 0
    drawn = buffer[buffer.sample(np.random.default_rng(0), 1000)]
    for array in (drawn.rewards, *map(policy.encoder.numbers, (drawn.obs, drawn.next_obs, buffer._frames[:, 0],
                                                              buffer._frames[:, 1], buffer.latest(20)))):
        assert np.isfinite(array).all()
    with pytest.raises(UserError, match=rf"step {sum(steps)}, environment [01] of rank 0: {what} is {number}; train"):
        collector.drain()


def test_a_first_observation_that_is_no_number_is_refused_at_once():
    class Blind(Walk):
        def reset(self, **options):
            return super().reset(**options)[0] * np.nan, {}

    with pytest.raises(UserError, match="step 0, environment 0 of rank 0: an observation is nan"):
        deepq.learn(Blind, 2000, print_interval=1e9)


def test_enormous_numbers_are_numbers():
    venv = make_vec_env(lambda: gym.wrappers.TransformObservation(Walk(), lambda obs: obs * 1e30, None), 2)
    policy = QPolicy(venv.single_observation_space, Walk.action_space)
    collector = ReplayCollector(venv, policy, ReplayBuffer(200, 2, frame_of(policy.encoder, 1), ACTION), Comm())
    collector.collect(20, at_random(policy))
    collector.drain()


class NoFinals(VectorWrapper):
    """Does not say what was seen last."""

    def step(self, actions):
        return *super().step(actions)[:4], {}


@pytest.mark.parametrize("name", ["deepq", "ddpg", "ppo2"])
def test_a_vector_environment_without_final_observations_is_refused(name, uncompiled):
    venv = NoFinals(vector(Pushed if name == "ddpg" else Walk, AutoresetMode.SAME_STEP))
    with pytest.raises(UserError, match="cut an episode off without giving its final observation"):
        registry.find(name).learn(venv, 30_000, sizes="8", print_interval=1e9)


class Pushed(Walk):
    """For continuous actions."""

    action_space = gym.spaces.Box(-1, 1, (1,))


@pytest.mark.parametrize("mode", MODES)
def test_ddpgs_statistics_count_what_was_acted_on_once(mode, uncompiled):
    """Dead steps, at which an episode's last observation is seen, do not count."""
    acted_on = []

    class Watched(Pushed):
        def reset(self, **options):
            self.seen, info = super().reset(**options)
            return self.seen, info

        def step(self, action):
            acted_on.append(self.seen.copy())
            self.seen, *rest = super().step(action)
            return self.seen, *rest

    policy = ddpg.learn(vector(Watched, mode), 600, nsteps=20, train_steps=1, learning_starts=540, print_interval=1e9,
                        sizes="8", normalize_observations=True)
    moments = policy.normalize.obs
    assert moments.count == len(acted_on) and 600 <= moments.count <= 602
    np.testing.assert_allclose(moments.mean, np.mean(acted_on, axis=0), rtol=1e-5)
    np.testing.assert_allclose(moments.var, np.var(acted_on, axis=0), rtol=1e-5)


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
    drawn = draw(buffer, policy, np.random.default_rng(3), 5, 4)
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
