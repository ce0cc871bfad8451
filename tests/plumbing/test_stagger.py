"""Environments with the same time limit do not come to it together; what is cut short so is no episode."""

import csv

import gymnasium as gym
import numpy as np
import pytest

from baselines_lite import deepq, ppo2, vpg
from baselines_lite.common.envs.vec_env import make_vec_env
from baselines_lite.common.experiment.config import RolloutConfig
from tests.logs import reproducible

SMALL = dict(num_env=4, nsteps=50, nminibatches=2, noptepochs=1, seed=0, print_interval=1e9)


def ends(venv, steps=650):
    """The steps at which each environment's episodes end."""
    venv.reset(seed=[1, 2, 3, 4])
    found = [[] for _ in range(4)]
    for t in range(1, steps + 1):
        _, _, _, truncated, _ = venv.step(np.zeros((4, 1), np.float32))
        for n in np.flatnonzero(truncated):
            found[n].append(t)
    venv.close()
    return found


@pytest.mark.parametrize("env", ["Pendulum-v1", lambda: gym.make("Pendulum-v1"),
                                 lambda: gym.wrappers.ClipAction(gym.make("Pendulum-v1"))])
@pytest.mark.parametrize("vec", [None, "async"])
def test_first_episodes_are_shorter_and_later_ones_are_whole(env, vec):
    ages = RolloutConfig(num_env=4).ages(0, 1)
    assert ends(make_vec_env(env, 4, vec=vec, ages=ages)) == [
        [200, 400, 600], [150, 350, 550], [100, 300, 500], [50, 250, 450, 650]]
    if vec is None:
        assert ends(make_vec_env(env, 4), 250) == [[200]] * 4


class Levels(gym.Wrapper):
    """Plays its ten levels by turns: each episode has a seed."""

    episode = 0

    def reset(self, *, seed=None, options=None):
        self.episode += 1
        return self.env.reset(seed=self.episode % 10, options=options)


class Unseeded(gym.Wrapper):
    """Keeps the seed to itself."""

    def reset(self, *, seed=None, options=None):
        return self.env.reset(options=options)


@pytest.mark.parametrize("wrapper", [Levels, Unseeded])
@pytest.mark.parametrize("vec", [None, "async"])
def test_it_is_the_first_episode_whatever_seeds_wrappers_give(wrapper, vec):
    ages = RolloutConfig(num_env=4).ages(0, 1)
    venv = make_vec_env(lambda: wrapper(gym.make("Pendulum-v1")), 4, vec=vec, ages=ages)
    assert ends(venv) == [[200, 400, 600], [150, 350, 550], [100, 300, 500], [50, 250, 450, 650]]


def test_ages_differ_over_all_ranks():
    config = RolloutConfig(num_env=2)
    assert [config.ages(rank, 3) for rank in range(3)] == [[0, 1 / 6], [2 / 6, 3 / 6], [4 / 6, 5 / 6]]
    assert RolloutConfig(num_env=1).ages(0, 1) is None and RolloutConfig(num_env=1).ages(1, 2) == [0.5]
    assert RolloutConfig(stagger=False).ages(0, 2) is None and deepq.Config().ages(0, 2) is None


def lengths(folder):
    with (folder / "monitor.csv").open() as file:
        file.readline()
        return [int(row["l"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("stagger", [True, False])
def test_what_is_cut_short_is_no_episode(tmp_path, stagger):
    ppo2.learn("Pendulum-v1", 4 * 450, log_path=str(tmp_path / "log"), stagger=stagger, **SMALL)
    # 200 and 400 steps; from ages of 50, 100 and 150 steps also 350, 300, and 250 and 450 steps: not 150, 100, 50
    assert lengths(tmp_path / "log") == [200] * (6 if stagger else 8)


class CountsItself(gym.Env):
    """One that cuts its episodes off itself, after 20 steps."""

    observation_space, action_space = gym.spaces.Box(-1, 1, (2,)), gym.spaces.Box(-1, 1, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.steps += 1
        return np.zeros(2, np.float32), 1.0, False, self.steps == 20, {}


@pytest.mark.parametrize(("env", "vec", "count"), [(CountsItself, None, 8), (CountsItself, "async", 8),
                                                   ("Pendulum-v1", "async", 0)])
def test_what_is_not_cut_short_counts(tmp_path, env, vec, count):
    """An environment with no time limit of Gymnasium's is not staggered: its first episodes are whole."""
    ppo2.learn(env, 4 * 50, log_path=str(tmp_path / "log"), vec=vec, **SMALL)
    assert lengths(tmp_path / "log") == [20] * count


def test_one_that_dies_counts_and_evaluation_is_not_staggered(tmp_path):
    for name, stagger in (("on", True), ("off", False)):
        vpg.learn("CartPole-v1", 4 * 50 * 4, num_env=4, nsteps=50, seed=0, stagger=stagger,
                  log_path=str(tmp_path / name), print_interval=1e9)
    assert reproducible(tmp_path / "on/monitor.csv") == reproducible(tmp_path / "off/monitor.csv")
    policy = ppo2.learn("Pendulum-v1", 4 * 50 * 2, log_path=str(tmp_path / "log"), eval_interval=1, eval_episodes=3,
                        **SMALL)
    with (tmp_path / "log/evaluations.csv").open() as file:
        assert {float(row["eplenmean"]) for row in csv.DictReader(file)} == {200.0}
    assert policy.stopped_by is None


def test_what_resumes_is_staggered_as_it_was(tmp_path):
    for name, steps in (("whole", 1800), ("parts", 800)):
        ppo2.learn("Pendulum-v1", steps, log_path=str(tmp_path / name), schedule_timesteps=1800, **SMALL)
    ppo2.learn("Pendulum-v1", 1800, resume=str(tmp_path / "parts"), schedule_timesteps=1800, **SMALL)
    for log in ("progress.csv", "monitor.csv"):
        assert reproducible(tmp_path / "whole" / log) == reproducible(tmp_path / "parts" / log)
