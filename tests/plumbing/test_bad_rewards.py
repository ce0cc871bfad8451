"""A reward or an observation that is no number ends a run on all ranks with a sentence, the policy kept."""

import gymnasium as gym
import numpy as np
import pytest

from baselines_lite import UserError, load, registry
from tests.plumbing.test_table import SHORT

SPACE = gym.spaces.Box(-1, 1, (2,))
QUIET = dict(print_interval=1e9, num_env=2)
BY_ROLLOUT = [name for name in registry.ALGORITHMS if name not in ("deepq", "ddpg")]


class Breaks(gym.Env):
    """Gives a number that is none after so many steps: as a reward or as an observation."""

    observation_space = SPACE

    def __init__(self, after, what="reward", continuous=False, number=float("nan")):
        self.action_space = SPACE if continuous else gym.spaces.Discrete(2)
        self.after, self.what, self.number, self.steps = after, what, number, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.normal(size=2).astype(np.float32), {}

    def step(self, action):
        self.steps += 1
        broken = self.steps >= self.after
        obs = np.full(2, self.number if broken and self.what == "observation" else self.np_random.normal(), np.float32)
        return obs, self.number if broken and self.what == "reward" else 1.0, False, self.steps % 10 == 0, {}


@pytest.mark.parametrize("what", ["reward", "observation"])
@pytest.mark.parametrize("name", BY_ROLLOUT)
def test_training_stops_before_the_policy_is_spoiled(name, what, tmp_path, uncompiled):
    with pytest.raises(UserError, match=rf"step 95, environment 0 of rank 0: (the|an) {what}.* is nan; training stops"):
        registry.find(name).learn(lambda: Breaks(95, what), 10_000, save_path=str(tmp_path / "m"),
                                  **{**SHORT[name], **QUIET, "nsteps": 20})
    assert all(np.isfinite(v.numpy()).all() for v in load(str(tmp_path / "m")).trainable_variables)


def test_it_stops_before_statistics_are_spoiled_too(uncompiled):
    with pytest.raises(UserError, match="the reward is nan"):
        registry.find("ppo2").learn(lambda: Breaks(1), 10_000, normalize_rewards=True, **QUIET)


@pytest.mark.parametrize(("after", "what"), [(95, "an observation"), (100, "a final observation")])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("number", [np.inf, -np.inf])
def test_an_infinite_observation_which_gives_a_finite_value(number, normalize, after, what, tmp_path, uncompiled):
    """tanh and the clip of what is normalised hide it; parameters and statistics would be spoiled."""
    random_steps = 520 if normalize else 0  # 512 of each environment, in whole episodes
    with pytest.raises(UserError, match=rf"environment 0 of rank 0: {what} is {number}; training stops"):
        registry.find("ppo2").learn(lambda: Breaks(random_steps + after, "observation", number=number), 10_000,
                                    normalize_observations=normalize, save_path=str(tmp_path / "m"),
                                    **{**SHORT["ppo2"], **QUIET, "nsteps": 20})
    policy = load(str(tmp_path / "m"))
    values = [*policy.trainable_variables, *policy.normalize.statistics().values()]
    assert all(np.isfinite(np.array(v)).all() for v in values)


@pytest.mark.parametrize("after", [1, 95, 100])  # at once, within an episode, at its end
@pytest.mark.parametrize("what", ["reward", "observation"])
@pytest.mark.parametrize("name", ["deepq", "ddpg"])
def test_with_replay_too(name, what, after, tmp_path, uncompiled, capsys):
    options = dict(normalize_observations=True) if name == "ddpg" else {}
    with pytest.raises(UserError, match=rf"step {after}, environment 0 of rank 0: .* {what} is nan; training stops"):
        registry.find(name).learn(lambda: Breaks(after, what, name == "ddpg"), 10_000, save_path=str(tmp_path / "m"),
                                  **{**SHORT[name], **QUIET, "nsteps": 20}, **options)
    assert ("the policy after 160 steps" in capsys.readouterr().out) == (after > 1) == (tmp_path / "m").exists()
    if after > 1:
        policy = load(str(tmp_path / "m"))
        values = [*policy.trainable_variables, *policy.normalize.statistics().values()]
        assert all(np.isfinite(np.array(v)).all() for v in values)


def test_nan_on_one_rank_ends_all(program):
    done = program("nan_on_one_rank")
    assert done.returncode == 2
    for what in ("the reward", "an observation"):
        assert done.stdout.count(f"step 101, environment 0 of rank 1: {what} is nan") == 2, what
