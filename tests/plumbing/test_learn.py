"""`learn` from Python: its budget by either name, and an environment that is an object."""

import csv
import gc

import gymnasium as gym
import pytest
import tensorflow as tf
from gymnasium.vector import SyncVectorEnv

from baselines_lite import UserError, evaluate, ppo2, registry
from tests.plumbing.test_table import ACTIONS, CHOICE, SHORT, VECTOR, Anything


@pytest.mark.parametrize("name", registry.ALGORITHMS)
def test_num_timesteps_is_total_timesteps(name, tmp_path, uncompiled):
    options = dict(SHORT[name], threads=1, print_interval=1e9, log_path=str(tmp_path / "log"))
    registry.find(name).learn(lambda: Anything(VECTOR, ACTIONS.get(name, CHOICE)), num_timesteps=32, **options)
    with (tmp_path / "log/progress.csv").open(newline="") as file:
        assert list(csv.DictReader(file))[-1]["total_timesteps"] == "32"
    with pytest.raises(UserError, match="two names of one number"):
        registry.find(name).learn("CartPole-v1", 1000, num_timesteps=1000)


@pytest.mark.parametrize("budget", [1e30, float("inf"), float("nan"), "many", 0, -5])
@pytest.mark.parametrize("keyword", ["total_timesteps", "num_timesteps"])
def test_a_budget_that_is_none(keyword, budget):
    with pytest.raises(UserError, match="num_timesteps must be"):
        ppo2.learn("CartPole-v1", **{keyword: budget})


class Noticed(gym.Wrapper):
    """Counts how often it was closed; raises an exception at its fifth step if given one."""

    def __init__(self, env, error=None):
        super().__init__(env)
        self.closed, self.steps, self.error = 0, 0, error

    def step(self, action):
        self.steps += 1
        if self.error is not None and self.steps == 5:
            raise self.error
        return super().step(action)

    def close(self):
        self.closed += 1


@pytest.mark.parametrize(("name", "id", "batch"), [
    ("ppo2", "CartPole-v1", "num_env 1 x nsteps 256"), ("a2c", "CartPole-v1", "num_env 1 x nsteps 64"),
    ("acer", "CartPole-v1", "num_env 1 x nsteps 160"), ("ddpg", "Pendulum-v1", "each 100 steps")])
def test_an_env_object_is_one_environment_and_stays_open(name, id, batch, uncompiled, capsys):
    """With the preset's samples per update."""
    env, options = Noticed(gym.make(id)), dict(learning_starts=1, train_steps=1) if name == "ddpg" else {}
    options |= dict(replay_ratio=0) if name == "acer" else {}
    policy = registry.find(name).learn(env, 300, **options)
    assert f"{batch};" in capsys.readouterr().out
    assert len(evaluate(policy, env, episodes=1)) == 1
    gc.collect()  # what is forgotten without being closed closes itself
    assert env.closed == 0 and env.steps > 0


@pytest.mark.parametrize("error", [RuntimeError("the wheel came off"), UserError("no more fuel")])
def test_after_a_fault_only_what_was_made_here_is_closed(error, uncompiled):
    made = []

    def factory():
        made.append(Noticed(gym.make("CartPole-v1"), error))
        return made[-1]

    env, venv = factory(), SyncVectorEnv([factory] * 2)
    lent = list(made)
    for env_like in (env, venv, factory):
        with pytest.raises(type(error)):
            ppo2.learn(env_like, 320, nsteps=8, print_interval=1e9)
    gc.collect()
    assert [e.closed for e in lent] == [0, 0, 0] and [e.closed for e in made[3:]] == [1] * 8


def test_an_env_object_cannot_be_several():
    with pytest.raises(UserError, match="num_env=8 is for an environment's id or factory: an Env object is one"):
        ppo2.learn(gym.make("CartPole-v1"), 100, num_env="8")


@pytest.mark.parametrize("name", registry.ALGORITHMS)
def test_tensorflow_is_given_no_rate_as_a_number(name, uncompiled, monkeypatch):
    """It keeps what it makes of each Python number, 760 bytes, to the end of the process."""
    numbers, rates, constant = set(), [], tf.constant

    def rate(remaining):
        rates.append(1e-3 + remaining / 7919)
        return rates[-1]

    def seen(value, *arguments, **named):
        numbers.update([value] if isinstance(value, float) else ())
        return constant(value, *arguments, **named)

    monkeypatch.setattr(tf, "constant", seen)
    option = {"npg": "vf_lr", "trpo_mpi": "vf_lr", "ddpg": "actor_lr"}.get(name, "lr")
    env = "Pendulum-v1" if name == "ddpg" else "CartPole-v1"
    registry.find(name).learn(env, 96, **SHORT[name] | {option: rate}, print_interval=1e9)
    assert len(rates) > 2 and not numbers & set(rates)
