"""Evaluations during training, and films. On two ranks: programs.py, goes_on; from a file: test_cli.py."""

import csv
import itertools
import signal
from types import SimpleNamespace
from unittest.mock import patch

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from imageio_ffmpeg import count_frames_and_secs
from PIL import Image

from baselines_lite import UserError, load, ppo2
from baselines_lite.common.envs.make import find_spec
from baselines_lite.common.envs.video import Film
from baselines_lite.common.experiment.config import RunOptions
from baselines_lite.common.experiment.evaluation import Evaluations, Played, Player, play_episodes, summary
from baselines_lite.common.policies.actor_critic import ActorCritic
from baselines_lite.common.system import watchdog
from baselines_lite.common.system.mpi import Comm
from tests.logs import reproducible

QUIET = dict(num_env=2, nsteps=16, nminibatches=1, noptepochs=1, print_interval=1e9, threads=1)
SAME = AutoresetMode.SAME_STEP
pytestmark = pytest.mark.usefixtures("uncompiled")


class Five(gym.Env):
    """Episodes of five steps, each of them worth 1; pictures of sides of odd length."""

    observation_space, action_space = gym.spaces.Box(-1, 1, (2,)), gym.spaces.Discrete(2)
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012  (Gymnasium's interface)
    made = drawn = 0

    def __init__(self):
        Five.made += 1
        self.number, self.closed = Five.made, False

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.see(), {}

    def see(self):
        return self.np_random.uniform(-1, 1, 2).astype(np.float32)

    def step(self, action):
        self.t += 1
        return self.see(), 1.0, False, self.t == 5, {}

    def render(self):
        Five.drawn += 1
        return np.full((31, 41, 3), 9 * Five.drawn % 256, np.uint8)


def learn(env, updates, tmp_path, **options):
    return ppo2.learn(env, 32 * updates, log_path=str(tmp_path / "log"), **{**QUIET, **options})


def evaluations(tmp_path):
    with (tmp_path / "log/evaluations.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def weights(policy):
    return [v.numpy().tolist() for v in policy.trainable_variables]


def test_a_file_is_no_policy():
    with pytest.raises(UserError, match="must be a policy, such as load"):
        play_episodes("model.safetensors", "CartPole-v1", 1, True, 0)


def test_the_first_of_equally_good_policies_is_kept(tmp_path):
    constant = dict(lr="1e-2", cliprange="0.2", eval_interval=2, eval_episodes=3)
    after_two = learn(Five, 2, tmp_path, **constant)
    after_five = learn(Five, 5, tmp_path, **constant)
    best = load(str(tmp_path / "log/best.safetensors"))
    assert weights(best) == weights(after_two) != weights(after_five)
    found = evaluations(tmp_path)
    assert [row["total_timesteps"] for row in found] == ["64", "128", "160"]  # the last update is evaluated too
    assert all((row["mean"], row["std_error"], row["episodes"], row["eplenmean"]) == ("5", "0", "3", "5")
               for row in found)


def test_a_worse_policy_does_not_replace_a_better_one_although_training_says_so(tmp_path):
    """A run of three evaluations, of which the second is the best."""
    means = iter([1.0, 3.0, 2.0])
    with patch.object(Player, "play", lambda self, episodes, stopped: [Played(next(means), 1, False)]):
        learn(Five, 6, tmp_path, eval_interval=2, eval_episodes=1, lr="1e-2")
    best = load(str(tmp_path / "log/best.safetensors"))
    assert weights(best) == weights(learn(Five, 4, tmp_path, schedule_timesteps=192, lr="1e-2"))


def test_the_target_return_is_that_of_an_evaluation(tmp_path, capfd):
    learn(Five, 50, tmp_path, eval_interval=3, eval_episodes=1, target_return=5)
    out = capfd.readouterr().out
    assert "reached the target return 5 after 96 steps" in out
    assert "evaluation after 96 steps: mean return 5 over 1 episode\n" in out
    assert evaluations(tmp_path)[0]["std_error"] == ""
    learn(Five, 50, tmp_path, resume="auto", eval_interval=3, eval_episodes=1, target_return=5)
    assert "reached the target return 5 after 96 steps" in capfd.readouterr().out


def test_a_signal_ends_an_evaluation_which_a_run_that_goes_on_makes_first(tmp_path):
    """Its row, the best policy and what follows are then as without the signal, also where it was the last one."""
    step, steps = Player.step, itertools.count()

    def interrupted(self):
        if next(steps) == 7:  # in the second evaluation: one takes five steps
            signal.raise_signal(signal.SIGTERM)
        return step(self)

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for updates in (4, 5):
        options = dict(eval_interval=2, eval_episodes=3, lr="1e-3", cliprange="0.2")
        weight = weights(learn(Five, updates, whole, **options))
        with patch.object(Player, "step", interrupted):
            policy = learn(Five, updates, parts, **options)
        assert policy.stopped_by is signal.SIGTERM and len(evaluations(parts)) == 1
        assert weights(learn(Five, updates, parts, resume="auto", **options)) == weight
        assert len(evaluations(parts)) == updates // 2 + updates % 2
        for name in ("evaluations", "progress", "monitor"):
            assert reproducible(whole / f"log/{name}.csv") == reproducible(parts / f"log/{name}.csv")
        assert (whole / "log/best.safetensors").read_bytes() == (parts / "log/best.safetensors").read_bytes()
        steps = itertools.count()


def test_an_owed_evaluation_may_reach_the_target_return(tmp_path, capfd):
    with patch.object(Player, "step", lambda self: signal.raise_signal(signal.SIGTERM) or []):
        learn(Five, 50, tmp_path, eval_interval=3, eval_episodes=1, target_return=5)
    learn(Five, 50, tmp_path, resume="auto", eval_interval=3, eval_episodes=1, target_return=5)
    assert "reached the target return 5 after 96 steps" in capfd.readouterr().out


def test_an_evaluation_without_an_end_says_so(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("baselines_lite.common.experiment.evaluation.LONG", 3)
    learn(Five, 2, tmp_path, eval_interval=2, eval_episodes=1)
    assert capfd.readouterr().err.count("an evaluation has taken 3 steps without the end of an episode") == 1


class Breaks(Five):
    """Those that are made for the second evaluation break at their second step."""

    def step(self, action):
        if self.number == 6 and self.t == 1:
            raise ArithmeticError("out of order")
        return super().step(action)

    def close(self):
        closed.append(self.number)


closed = []


def test_an_environment_that_fails_in_an_evaluation_is_named_and_closed(tmp_path, capfd):
    """Two are made for training, two for each evaluation."""
    Five.made = 0
    closed.clear()
    with pytest.raises(ArithmeticError, match="out of order") as caught:
        learn(Breaks, 4, tmp_path, eval_interval=1, eval_episodes=2)
    assert caught.value.__notes__ == ["This came from environment 1 of the evaluation of rank 0."]
    assert sorted(closed) == [1, 2, 3, 4, 5, 6]
    assert "the policy after 64 steps, the last logged update, is saved" in capfd.readouterr().out


def test_what_cannot_be_made_again_is_refused(tmp_path):
    for env in (Five(), SyncVectorEnv([Five, Five])):
        with pytest.raises(UserError, match="eval_interval=1 is for an environment's id or factory"):
            ppo2.learn(env, 64, eval_interval=1, nsteps=16, nminibatches=1)
    with pytest.raises(UserError, match="eval_deterministic has no meaning without eval_interval"):
        ppo2.learn(Five, 64, eval_deterministic=False, **QUIET)


def test_a_reward_that_is_not_finite_ends_the_run(tmp_path):
    with (patch.object(Player, "play", lambda self, episodes, stopped: [Played(np.nan, 1, False)]),
          pytest.raises(UserError, match="a return in the evaluation after update 2 is nan")):
        learn(Five, 4, tmp_path, eval_interval=2, eval_episodes=1)
    assert not (tmp_path / "log/best.safetensors").exists()


def test_games_are_whole_and_by_default_with_drawn_actions():
    policy = SimpleNamespace(info={"env": "BreakoutNoFrameskip-v4", "atari": {"frame_cap": 90, "clip_rewards": True}})
    of_game = Evaluations(policy, Comm(), RunOptions(eval_interval=1), 1, "BreakoutNoFrameskip-v4", None)
    assert not of_game._atari.life_loss and of_game._atari.frame_cap == 90 and not of_game._deterministic
    of_spec = Evaluations(policy, Comm(), RunOptions(eval_interval=1), 1, find_spec(policy.info["env"]), None)
    assert of_spec._atari == of_game._atari and not of_spec._deterministic
    for env in ("CartPole-v1", gym.spec("CartPole-v1"), Five):
        assert Evaluations(policy, Comm(), RunOptions(eval_interval=1), 1, env, None)._deterministic


class Waits(Comm):
    """A rank that waits for longer episodes of others."""

    def gather(self, value):
        assert watchdog._pauses
        return super().gather(value)


def test_steps_are_signs_of_life_and_waiting_for_others_is_no_stall():
    policy = ActorCritic(Five.observation_space, Five.action_space)
    run, before = RunOptions(eval_interval=1, eval_episodes=2), watchdog._beats
    found = Evaluations(policy, Waits(), run, 1, Five, lambda n, atari: SyncVectorEnv([Five] * n, autoreset_mode=SAME)
                        ).after(1)
    assert found["episodes"] == 2 and watchdog._beats >= before + 5


@pytest.mark.parametrize("mode", AutoresetMode)
def test_lengths_in_every_mode(mode):
    """The dead steps of NEXT_STEP mode are no part of an episode. Nothing is drawn."""
    Five.drawn = 0
    venv = SyncVectorEnv([Five, Five, Five], autoreset_mode=mode)
    played = play_episodes(ActorCritic(Five.observation_space, Five.action_space), venv, 7, True, 0)
    assert played == [Played(5.0, 5, True)] * 7 and Five.drawn == 0
    assert summary(played) == {"mean": 5.0, "std_error": 0.0, "interval": [5.0, 5.0], "min": 5.0, "max": 5.0,
                               "episodes": 7, "cut": 7, "eplenmean": 5.0}


def test_who_dies_at_the_time_limit_is_not_cut_off():
    class Dies(Five):
        def step(self, action):
            obs, reward, _, truncated, info = super().step(action)
            return obs, reward, truncated, truncated, info

    played = play_episodes(ActorCritic(Five.observation_space, Five.action_space), Dies, 2, True, 0)
    assert played == [Played(5.0, 5, False)] * 2


@pytest.mark.parametrize("kind", ["mp4", "gif"])
def test_a_film_has_every_frame_of_its_episodes(tmp_path, kind):
    Five.drawn = 0
    film = Film(Five(), str(tmp_path / f"film.{kind}"), 2)
    for episode in range(3):
        film.reset()
        for _ in range(5):
            film.step(0)
        if episode == 1:  # whole by now
            if kind == "gif":
                with Image.open(tmp_path / "film.gif") as gif:
                    assert gif.n_frames == 12 and gif.size == (41, 31) and gif.info["duration"] == 100
            else:
                assert count_frames_and_secs(str(tmp_path / "film.mp4")) == (12, pytest.approx(1.2))
    assert Five.drawn == 12
    film.close()
