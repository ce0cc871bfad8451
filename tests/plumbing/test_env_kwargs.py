"""Keywords for an environment's constructor: in training, evaluation and resume, from flags, Python and files."""

import json

import gymnasium as gym
import numpy as np
import pytest

from baselines_lite import UserError, evaluate, load, ppo2
from baselines_lite.common.envs.make import make_one, with_kwargs
from baselines_lite.common.system.options import Json
from tests.plumbing.test_table import SHORT

SHORTLY = {**SHORT["ppo2"], "print_interval": 1e9}
FLAGS = [f"--{name}={value}" for name, value in SHORTLY.items()]


class Line(gym.Env):
    """Each step gives `gives`; an episode has `steps` of them, named by `name`."""

    observation_space, action_space = gym.spaces.Box(-1, 1, (1,)), gym.spaces.Discrete(2)

    def __init__(self, gives=1.0, steps=4, name=""):
        self.gives, self.steps, self.name = gives, steps, name

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = self.steps
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.left -= 1
        return np.zeros(1, np.float32), self.gives, self.left == 0, False, {}


gym.register("Line-v0", Line)


@pytest.mark.parametrize("given", [{"gives": 2, "steps": 3}, '{"steps": 3, "gives": 2}'])
def test_a_policy_is_evaluated_in_the_environment_that_it_was_trained_in(given, tmp_path, uncompiled):
    policy = ppo2.learn("Line-v0", 64, **SHORTLY, env_kwargs=given, log_path=str(tmp_path / "r"), eval_interval=1)
    for again in (policy, load(str(tmp_path / "r/model.safetensors"))):
        assert evaluate(again, "Line-v0", 2).tolist() == [6, 6]
    assert evaluate(policy, lambda: Line(), 1).tolist() == [4]
    rows = (tmp_path / "r/monitor.csv").read_text().splitlines()[2:]
    assert rows and all(row.startswith("6,3,") for row in rows)
    assert "6" in (tmp_path / "r/evaluations.csv").read_text().splitlines()[1].split(",")
    assert json.loads((tmp_path / "r/config.json").read_text())["run"]["env_kwargs"] == '{"gives": 2, "steps": 3}'


def test_the_command_line_trains_goes_on_and_evaluates_with_them(main, tmp_path, uncompiled):
    run = ["--env=Line-v0", "--log_path=r", *FLAGS]
    assert main(*run, "--num_timesteps=32", '--env_kwargs={"gives": 3}').returncode == 0
    done = main(*run, "--num_timesteps=32", "--resume=auto", '--env_kwargs={"gives": 4}')
    assert (done.returncode, done.stderr.count("\n")) == (2, 1) and 'has env_kwargs={"gives": 3}, not' in done.stderr
    assert main("--env=Line-v0", "--resume=r").returncode == 0
    assert "mean return 12 over 2" in main("--load_path=r/model.safetensors", "--eval_episodes=2").stdout
    assert json.loads((tmp_path / "r/model.eval.json").read_text())["env_kwargs"] == '{"gives": 3}'
    done = main("--load_path=r/model.safetensors", "--eval_episodes=2", '--env_kwargs={"gives": 5}')
    assert "mean return 20 over 2" in done.stdout


def test_text_from_a_file_is_used_only_where_it_is_given_again(main, tmp_path, uncompiled):
    run = ["--env=Line-v0", "--log_path=r", *FLAGS, "--num_timesteps=32"]
    text = '{"name": "a"}'
    done = main(*run, f"--env_kwargs={text}")
    assert done.returncode == 0 and f"--env_kwargs='{text}'" not in done.stdout  # nor is it played as an id
    for flags in (["--load_path=r/model.safetensors", "--eval_episodes=2"], ["--resume=r"]):
        done = main(*flags)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "if you trust it, give --env_kwargs" in done.stderr
        assert main(*flags, f"--env_kwargs={text}").returncode == 0


def test_no_other_environment_has_them():
    made = make_one(with_kwargs("Line-v0", Json({"steps": 7})))
    assert made.unwrapped.steps == 7 and gym.spec("Line-v0").kwargs == {}


@pytest.mark.parametrize(("env", "kwargs", "message"), [
    ("Line-v0", {"none": 1}, "cannot be made: TypeError: .* unexpected keyword argument 'none'"),
    ("Line-v0", "[1]", r"'\[1\]' is not a JSON object"), ("Line-v0", "{", "is not a JSON object"),
    ("Line-v0", {"gives": object()}, "is not a JSON object"),
    ("Line-v0", {"gives": float("nan")}, "is not a JSON object"),
    (Line, {"gives": 1}, "env_kwargs are for an environment's id"),
    ("PongNoFrameskip-v4", {"mode": 1}, "env_kwargs=.* are not for Atari games")])
def test_what_cannot_be_meant(env, kwargs, message):
    with pytest.raises(UserError, match=message):
        ppo2.learn(env, 2048, env_kwargs=kwargs)
