"""Environments that break Gymnasium's rules: one sentence that names them, what came and what was expected."""


import sys

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv, VectorEnv

from baselines_lite import UserError, evaluate, registry
from baselines_lite.common.envs.vec_env import make_vec_env, reset
from baselines_lite.common.policies.actor_critic import ActorCritic
from tests.plumbing.test_table import SHORT

BOX, CHOICE = spaces.Box(-1, 1, (3,)), spaces.Discrete(2)
GOOD = np.zeros(3, np.float32)


class Plain(gym.Env):
    """Keeps the rules for `after` steps; then `step` gives what it was told to."""

    observation_space, action_space = BOX, CHOICE

    def __init__(self, gives=(GOOD, 0.0, False, False, {}), after=0, first=(GOOD, {})):
        self.gives, self.after, self.first, self.steps = gives, after, first, 0

    def reset(self, *, seed=None, options=None):
        return self.first

    def step(self, action):
        self.steps += 1
        return self.gives if self.steps > self.after else (GOOD, 0.0, False, False, {})


class Named(Plain):
    """Other spaces, or none."""

    def __init__(self, first=(GOOD, {}), **spaces):
        super().__init__(first=first)
        vars(self).update(spaces)


class NoSeed(Plain):
    def reset(self):
        return GOOD, {}


class NoSpaces(gym.Env):
    pass


def first(obs, space=BOX):
    return lambda: Named((obs, {}), observation_space=space)


def gives(obs=GOOD, reward=0.0, terminated=False, truncated=False, info=None):
    return obs, reward, terminated, truncated, {} if info is None else info


DICT, TUPLE = spaces.Dict({"a": BOX, "b": CHOICE}), spaces.Tuple([BOX, CHOICE])
AT_THE_START = {
    "its observation_space is None, where a gymnasium.Space is expected": NoSpaces,
    "its action_space is a tuple of 2 values, where a gymnasium.Space is expected": lambda: Named(action_space=(-1, 1)),
    r"NoSeed.reset does not take seed, where reset\(\*, seed=None, options=None\) is expected": NoSeed,
    r"reset\(\) gave float32 of shape \(3,\), where a tuple \(observation, info\) is expected, info a dict, "
    "not the old observation alone":
        lambda: Named(GOOD),
    r"reset\(\) gave float32 of shape \(4,\) as the observation, where float32 of shape \(3,\) is expected":
        first(np.zeros(4, np.float32)),
    r"reset\(\) gave complex64 of shape \(3,\) as the observation, where float32 .*": first(GOOD + 1j),
    r"reset\(\) gave a list of 2 values as the observation, where float32 of shape \(3,\) is expected":
        first([[1, 2], 3]),
    r"reset\(\) gave 0.5 as the observation, where int64 of shape \(\) is expected": first(0.5, CHOICE),
    r"reset\(\) gave 2 as the observation, which Discrete\(2\) does not contain": first(2, CHOICE),
    r"reset\(\) gave the observation with \['a'\], where \['a', 'b'\] are expected": first({"a": GOOD}, DICT),
    r"reset\(\) gave the observation with \['a', 'b', 'c'\], where .*": first({"a": GOOD, "b": 0, "c": 0}, DICT),
    r"reset\(\) gave float32 of shape \(3,\) as the observation, where a dict is expected": first(GOOD, DICT),
    r"reset\(\) gave None as the observation\['b'\], where int64 .*": first({"a": GOOD, "b": None}, DICT),
    r"reset\(\) gave float32 of shape \(1,\) as the observation\[0\], where .*": first((GOOD[:1], 0), TUPLE),
}
AT_A_STEP = {
    r"step\(\) gave a tuple of 4 values, where a tuple \(observation, reward, terminated, truncated, info\) is "
    r"expected, not the old \(observation, reward, done, info\)": (GOOD, 0.0, False, {}),
    r"step\(\) gave None, where a tuple \(.*\) is expected": None,
    r"step\(\) gave float32 of shape \(2,\) as the observation, where float32 of shape \(3,\) is expected":
        gives(GOOD[:2]),
    r"step\(\) gave float64 of shape \(2,\) as the reward, where a number is expected": gives(reward=np.zeros(2)),
    r"step\(\) gave a list of 2 values as the reward, where a number is expected": gives(reward=[1.0, 2.0]),
    r"step\(\) gave bool of shape \(2,\) as terminated, where True or False is expected":
        gives(terminated=np.zeros(2, bool)),
}
UNNOTICED = {  # by what handles them at later steps
    r"step\(\) gave float64 of shape \(1,\) as the reward, where a number is expected": gives(reward=np.zeros(1)),
    r"step\(\) gave None as the reward, where a number is expected": gives(reward=None),
    r"step\(\) gave 0 as truncated, where True or False is expected": gives(truncated=0),
    r"step\(\) gave a list of 1 value as info, where a dict is expected": gives(info=[3]),
}


def told(env, steps, words, **options):
    """Steps an environment until it is refused in these words, and in no others."""
    with pytest.raises(UserError) as raised:
        venv = make_vec_env(env, **options)
        reset(venv, [0] * venv.num_envs)
        for _ in range(steps):
            venv.step(np.zeros(venv.num_envs, int))
    assert "\n" not in str(raised.value)
    raised.match(f"^the environment [A-Z][A-Za-z0-9-]* breaks a rule of Gymnasium: {words}$")
    return raised.value


@pytest.mark.parametrize("words", AT_THE_START)
def test_at_the_start(words):
    told(AT_THE_START[words], 0, words, num_env=2)


@pytest.mark.parametrize(("words", "after"), [(words, after) for words in AT_A_STEP | UNNOTICED for after in (0, 3)
                                              if not (after and words in UNNOTICED)])
def test_at_a_step(words, after):
    broken = (AT_A_STEP | UNNOTICED)[words]
    told(lambda: Plain(broken, after), after + 1, words, num_env=2)
    told(Plain(broken, after), after + 1, words)


@pytest.mark.parametrize("checker", [True, False])
def test_what_gymnasiums_own_wrappers_say(checker, recwarn):
    """gym.make brings a checker of its own and a time limit, which take apart what the environment gave."""
    gym.register("Old-v0", lambda: Plain((GOOD, 0.0, False, {})), max_episode_steps=9)
    gym.register("Keys-v0", first({"a": GOOD}, DICT))
    told(gym.make("Old-v0", disable_env_checker=not checker), 1, "ValueError: not enough values to unpack.*")
    told(gym.make("Keys-v0", disable_env_checker=not checker), 1,
         "AssertionError: .* keys .*" if checker else r"reset\(\) gave the observation with \['a'\], .*")
    told("Old-v0", 1, "ValueError: not enough values to unpack.*", num_env=2)


def test_an_exception_of_its_own_is_left_alone():
    class Raises(Plain):
        def step(self, action):
            if self.steps == 2:
                raise ValueError("the wheel came off")
            return super().step(action)

    for env in (Raises(), Raises, Raises(gives(truncated=0), after=1)):
        venv = make_vec_env(env)
        reset(venv, [0])
        with pytest.raises(ValueError, match="the wheel came off"):
            for _ in range(3):
                venv.step(np.zeros(1, int))


def test_what_is_no_environment():
    with pytest.raises(UserError, match=r"^an environment must be a gymnasium.Env, not a SyncVectorEnv$"):
        make_vec_env(lambda: SyncVectorEnv([Plain]))


def test_numbers_of_other_widths_and_out_of_bounds_are_taken():
    venv = make_vec_env(lambda: Plain(gives([2.0, 3.0, np.float64(4)], np.float32(1), np.True_, info={"a": 1}),
                                      first=(np.full(3, 7), {})))
    np.testing.assert_array_equal(reset(venv, [0]), [[7, 7, 7]])
    np.testing.assert_array_equal(venv.step(np.zeros(1, int))[4]["final_obs"][0], [2, 3, 4])


def test_a_vector_environment():
    class Short(VectorEnv):
        num_envs, single_observation_space, single_action_space = 2, BOX, CHOICE
        observation_space = spaces.Box(-1, 1, (2, 3))

        def reset(self, *, seed=None, options=None):
            return np.zeros((1, 3), np.float32), {}

    with pytest.raises(UserError, match=r"vector environment Short breaks .* gave float32 of shape \(1, 3\)"):
        reset(Short(), [0, 1])


def test_in_worker_processes(recwarn):
    """Where Gymnasium would warn of the traceback as well."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers need not import what tests do
    told(lambda: Plain((GOOD, 0.0, False, {}), after=2), 3, r"step\(\) gave a tuple of 4 values.*", num_env=2,
         vec="async")
    assert not list(recwarn)


@pytest.mark.parametrize("name", ["a2c", "deepq"])
def test_runs_end_in_a_sentence(name, uncompiled, tmp_path):
    path = tmp_path / "m"
    with pytest.raises(UserError, match=r"environment Plain breaks .* float32 of shape \(2,\) as the observation"):
        registry.find(name).learn(lambda: Plain(gives(GOOD[:2]), after=10), 320, **SHORT[name], print_interval=1e9,
                                  save_path=str(path))
    assert path.exists()
    with pytest.raises(UserError, match="reset does not take seed"):
        registry.find(name).learn(NoSeed, 320, **SHORT[name], print_interval=1e9)


def test_evaluation_too():
    with pytest.raises(UserError, match=r"environment Plain breaks .* as the reward"):
        evaluate(ActorCritic(BOX, CHOICE), lambda: Plain(gives(reward=np.zeros(3))), episodes=2)


def test_the_command_line_prints_a_line(main):
    gym.register("Rewards-v0", lambda: Plain(gives(reward=np.zeros(3))))
    done = main("--env=Rewards-v0", "--num_timesteps=64", "--num_env=2", "--nsteps=32")
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("error: the environment Rewards-v0 breaks a rule of Gymnasium: step() gave float64")
