"""The command outside the checkout: modules of the current folder, and a play command that works there."""

import os
import re
import subprocess
import sys

import gymnasium as gym
import pytest

from baselines_lite import __version__
from baselines_lite.common.experiment.evaluation import play_command
from baselines_lite.common.policies.actor_critic import ActorCritic
from tests.conftest import ROOT
from tests.plumbing.forks import KINDS, copy, own_policy

ENVIRONMENT = """
import gymnasium as gym
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

gym.register("Pole-v0", CartPoleEnv, max_episode_steps=50)
"""
SCRIPT = f"""#!{sys.executable}
import sys
from baselines_lite.run import console
if __name__ == "__main__":
    sys.exit(console())
"""


def outside(command, folder):
    return subprocess.run(command, cwd=folder, text=True, capture_output=True, shell=isinstance(command, str),
                          env={**os.environ, "PYTHONPATH": str(ROOT), "DISPLAY": ""})


def test_the_installed_command_sees_modules_here_and_its_play_command_works_here(tmp_path):
    """An algorithm with a policy class and an environment of one's own, started as by pip's script."""
    script, here = tmp_path / "bin/baselines-lite", tmp_path / "here"
    script.parent.mkdir()
    script.write_text(SCRIPT)
    script.chmod(0o755)
    alg = copy("ppo2", here, own_policy)
    (here / "mine.py").write_text(ENVIRONMENT)
    done = outside([str(script), f"--alg={alg}", "--env=mine:Pole-v0", "--num_timesteps=32", *KINDS["ppo2"],
                    "--log_path=log"], here)
    assert done.returncode == 0, done.stderr
    play = re.search(r"^play: +(.*)", done.stdout, re.MULTILINE)[1]
    assert play.startswith(str(script)) and play.endswith(f"--play --alg={alg} --env=mine:Pole-v0")
    done = outside(f"{play} --play_episodes=1", here)
    assert done.returncode == 0 and "mean return" in done.stdout, done.stderr


def test_it_runs_as_a_module(tmp_path):
    done = outside([sys.executable, "-m", "baselines_lite.run", "--version"], tmp_path)
    assert (done.returncode, done.stdout) == (0, f"baselines_lite {__version__}\n"), done.stderr


@pytest.mark.parametrize(("argv", "words"), [
    ("/opt/bin/baselines-lite", "/opt/bin/baselines-lite"), (str(ROOT / "run.py"), f"{sys.executable} {ROOT}/run.py"),
    ("train.py", f"{sys.executable} -m baselines_lite.run"), ("elsewhere/run.py", f"{sys.executable} -m "),
    ("", f"{sys.executable} -m baselines_lite.run")])
def test_the_play_command_starts_as_this_process_was_started(argv, words, monkeypatch):
    policy = ActorCritic(gym.spaces.Box(-1, 1, (2,)), gym.spaces.Discrete(2))
    policy.info = {"algorithm": "ppo2", "env": "CartPole-v1"}
    monkeypatch.setattr(sys, "argv", [argv])
    command = play_command(policy, "my model")
    assert command.startswith(words) and command.endswith(" '--load_path=my model' --play")
    policy.info["env"] = "<lambda>"  # what has no id is played from Python
    assert play_command(policy, "m") == "evaluate(load('m'), ...), from Python"
