"""Atari on the real emulator: what ends when, whose scores are logged, and that one game is as good as many."""

import json

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf
from imageio_ffmpeg import count_frames_and_secs

from baselines_lite import evaluate, load, ppo2
from baselines_lite.acer.replay import Replay, segments_of
from baselines_lite.common.envs.atari import AtariGame, AtariGames, settle, to_watch
from baselines_lite.common.envs.atari_options import AtariOptions
from baselines_lite.common.envs.episode_stats import WHOLE_EPISODE_OVER
from baselines_lite.common.envs.make import find_spec
from baselines_lite.common.envs.vec_env import make_vec_env
from baselines_lite.common.optim.minibatch import Minibatches
from baselines_lite.common.policies.actor_critic import ActorCritic
from baselines_lite.common.policies.actor_q import ActorQ
from baselines_lite.common.sampling.collector import Collector
from baselines_lite.common.system.errors import UserError
from baselines_lite.common.system.mpi import Comm
from tests.conftest import ROOT
from tests.logs import reproducible
from tests.plumbing.test_table import SMALL_CNN

TINY = dict(network="cnn_small", **SMALL_CNN, num_env=2, nsteps=16, nminibatches=2, noptepochs=1, threads=1,
            print_interval=1e9)


def games(env_id, num_env=2, threads=1, render_mode=None, **options):
    return AtariGames(find_spec(env_id), num_env, AtariOptions(**options), threads, render_mode)


def reference(env_id, num_env, **options):
    """The emulators without any notion of lost lives: they end when the game does."""
    return games(env_id, num_env, life_loss=False, **options)


def policy_for(venv, **options):
    return ActorCritic(venv.single_observation_space, venv.single_action_space, network="cnn_small",
                       network_options=SMALL_CNN, value_network="shared", **options)


@pytest.mark.parametrize("env_id", ["BreakoutNoFrameskip-v4", "SpaceInvadersNoFrameskip-v4"])
def test_a_lost_life_ends_the_training_episode_but_not_the_game(env_id):
    venv, whole = games(env_id), reference(env_id, 2)
    rng = np.random.default_rng(0)
    venv.reset(seed=[1, 2])
    lives = whole.reset(seed=[1, 2])[1]["lives"]
    lost, over = np.zeros(2, int), np.zeros(2, int)
    for _ in range(600):
        actions = rng.integers(venv.single_action_space.n, size=2)
        obs, rewards, terminated, truncated, infos = venv.step(actions)
        obs2, rewards2, game_over, _, infos2 = whole.step(actions)
        np.testing.assert_array_equal(obs, obs2)  # nothing is reset at a lost life
        np.testing.assert_array_equal(rewards, rewards2)
        np.testing.assert_array_equal(infos[WHOLE_EPISODE_OVER], game_over)
        np.testing.assert_array_equal(terminated, game_over | (infos2["lives"] < lives))
        assert not truncated.any()
        lives = infos2["lives"]
        lost += terminated & ~game_over
        over += game_over
    assert (lost > 2).all() and (over >= 1).all()


@pytest.mark.parametrize(("env_id", "options"), [
    ("BreakoutNoFrameskip-v4", {}),  # five lives
    ("SpaceInvadersNoFrameskip-v4", {}),  # rewards of 5 to 30
    ("PongNoFrameskip-v4", {"frame_cap": 600}),  # no lives; negative scores; cut off
    ("BoxingNoFrameskip-v4", {"frame_cap": 1000}),  # no lives
])
def test_the_log_has_raw_scores_of_whole_games(env_id, options):
    venv, whole = games(env_id, **options), reference(env_id, 2, **options)
    policy = policy_for(venv)
    collector = Collector(venv, policy, 130, Comm(), seed=5, shape_rewards=np.sign)
    whole.reset(seed=collector._seeds)
    expected, found, totals, lengths, trained = [], [], np.zeros(2), np.zeros(2, int), set()
    while len(expected) < 2:
        rollout = collector.collect()
        found += [(e.r, e.l) for e in rollout.episodes]
        trained |= set(rollout.rewards.ravel())
        for actions in rollout.actions:
            _, rewards, terminated, truncated, _ = whole.step(actions)
            totals += rewards
            lengths += 1
            for n in np.flatnonzero(terminated | truncated):
                expected.append((totals[n], lengths[n]))
                totals[n], lengths[n] = 0, 0
    assert found == expected
    assert trained <= {-1.0, 0.0, 1.0} and any(r != 0 for r, _ in expected)


def test_the_frame_cap_truncates_and_bootstraps_from_the_final_observation(monkeypatch):
    venv, longer = games("PongNoFrameskip-v4", frame_cap=80), reference("PongNoFrameskip-v4", 2)
    policy = policy_for(venv)
    step, final = venv.step, []

    def recording(actions):
        result = step(actions)
        final.extend([result[4]["final_obs"]] if "final_obs" in result[4] else [])
        return result

    monkeypatch.setattr(venv, "step", recording)
    collector = Collector(venv, policy, 25, Comm(), seed=3)
    longer.reset(seed=collector._seeds)
    rollout = collector.collect()
    cut = np.zeros((25, 2), bool)
    cut[19] = True  # 80 frames are 20 steps
    np.testing.assert_array_equal(rollout.dones, cut)
    assert not rollout.terminated.any() and [e.l for e in rollout.episodes] == [20, 20]
    for actions in rollout.actions[:20]:
        last = longer.step(actions)[0]
    np.testing.assert_array_equal(final[0][:, :3], last[:, :3])
    assert np.mean(final[0][:, 3] != last[:, 3]) < 0.01  # the native environment leaves out the very last frame
    np.testing.assert_allclose(rollout.next_values[19], policy.values(policy.features(final[0])), atol=1e-6)
    assert not np.allclose(rollout.next_values[19], rollout.values[20], atol=1e-6)  # of the next game


def test_each_id_has_its_own_stickiness():
    for env_id, sticky in (("PongNoFrameskip-v4", 0.0), ("ALE/Pong-v5", 0.25), ("PongNoFrameskip-v0", 0.25)):
        assert settle(find_spec(env_id), AtariOptions()).sticky == sticky
        assert settle(find_spec(env_id), AtariOptions(sticky=0.5)).sticky == 0.5
        # From the same start, the same actions lead to the same screens unless the emulator sticks.
        venv = games(env_id, noop_max=0)
        venv.reset(seed=[1, 2])
        rng = np.random.default_rng(0)
        for _ in range(60):
            obs = venv.step(np.repeat(rng.integers(6), 2))[0]
        assert np.array_equal(obs[0], obs[1]) == (sticky == 0)


def test_options_reach_the_emulator():
    assert games("PongNoFrameskip-v4", 1).single_action_space.n == 6
    assert games("PongNoFrameskip-v4", 1, full_action_space=True).single_action_space.n == 18
    venv = games("PongNoFrameskip-v4", 4, frame_stack=2, frame_skip=2, noop_max=3)
    frames = np.concatenate([venv.reset(seed=[4 * k, 4 * k + 1, 4 * k + 2, 4 * k + 3])[1]["episode_frame_number"]
                             for k in range(3)])
    assert frames.min() == 1 and frames.max() == 3  # FIRE is one of them
    obs, *_, infos = venv.step(np.zeros(4, int))
    assert obs.shape == (4, 2, 84, 84) and venv.metadata["render_fps"] == 30
    np.testing.assert_array_equal(infos["episode_frame_number"] - 2, frames[-4:])


def test_native_environments_leave_gymnasiums_own_metadata_alone():
    games("PongNoFrameskip-v4")
    assert "autoreset_mode" not in gym.vector.VectorEnv.metadata


@pytest.mark.parametrize(("env_id", "options"), [("BreakoutNoFrameskip-v4", {}), ("ALE/Breakout-v5", {}),
                                                 ("PongNoFrameskip-v4", {"frame_cap": 400})])
def test_one_game_is_one_of_many(env_id, options):
    """Stacks, rewards and ends of the environment that is watched are those of the environment that is trained in."""
    venv = games(env_id, 3, threads=2, **options)
    one = AtariGame(find_spec(env_id), AtariOptions(**options), render_mode="rgb_array")
    seeds = [11, 12, 13]
    many, _ = venv.reset(seed=seeds)
    obs, _ = one.reset(seed=seeds[1])
    rng = np.random.default_rng(1)
    ends = 0
    for _ in range(400):
        np.testing.assert_array_equal(obs, many[1])
        actions = rng.integers(venv.single_action_space.n, size=3)
        many, rewards, terminated, truncated, infos = venv.step(actions)
        obs, reward, dead, cut, _ = one.step(int(actions[1]))
        assert (reward, dead, cut) == (rewards[1], terminated[1], truncated[1])
        if infos[WHOLE_EPISODE_OVER][1]:
            np.testing.assert_array_equal(obs, infos["final_obs"][1])
        picture = one.render()
        assert picture.shape == (210, 160, 3) and picture.dtype == np.uint8
        if dead or cut:
            ends += 1
            obs, _ = one.reset()
    assert ends >= 3


def test_the_picture_shows_what_the_policy_sees():
    game = AtariGame(find_spec("ALE/Breakout-v5"), AtariOptions(), render_mode="rgb_array")
    game.reset(seed=4)
    rng = np.random.default_rng(0)
    shown, seen = [], []
    for _ in range(300):
        obs, _, dead, _, _ = game.step(int(rng.integers(4)))
        picture = game.render().astype(float) @ [0.299, 0.587, 0.114]
        # 210 rows to 84 by area: 5 rows to 2. Columns are averaged away.
        rows = picture.mean(axis=1).reshape(42, 5)
        shown.append(np.stack([rows[:, :2].sum(axis=1) + rows[:, 2] / 2, rows[:, 3:].sum(axis=1) + rows[:, 2] / 2],
                              axis=1).ravel() / 2.5)
        seen.append(obs[-1].mean(axis=1))
        if dead:
            game.reset()
    np.testing.assert_allclose(shown, seen, atol=1.5)  # rounding of greys and pixels


def test_pictures_stay_uint8_until_the_compiled_functions(monkeypatch):
    signatures = {}
    update, act = Minibatches.__call__, ActorCritic._act_with

    def updating(self, data, *rest):
        signatures["update"] = data["obs"].dtype
        assert data["obs"].shape == (32, 84, 84, 4)
        return update(self, data, *rest)

    def acting(self, weights, features, *memory):
        signatures["act"] = features.dtype
        return act(self, weights, features, *memory)

    monkeypatch.setattr(Minibatches, "__call__", updating)
    monkeypatch.setattr(ActorCritic, "_act_with", acting)
    ppo2.learn("PongNoFrameskip-v4", 32, **TINY)
    assert signatures == {"update": tf.uint8, "act": tf.uint8}


def test_same_seed_same_log_with_one_and_with_two_emulator_threads(tmp_path):
    logs = []
    for threads in (1, 2):
        folder = tmp_path / f"{len(logs)}"
        ppo2.learn("ALE/Breakout-v5", 8 * 48, seed=7, env_threads=threads, log_path=str(folder), frame_cap=200,
                   **(TINY | {"num_env": 3}))
        logs.append(reproducible(folder / "progress.csv"))
    assert len(logs[0]) == 9 and int(logs[0][-1][logs[0][0].index("episodes")]) > 2
    assert logs[0] == logs[1]


def test_the_preset_is_printed_and_saved_and_the_model_plays_alike(tmp_path, capsys):
    folder = tmp_path / "log"
    published = {name: value for name, value in TINY.items() if name not in SMALL_CNN}
    policy = ppo2.learn("ALE/Pong-v5", 64, log_path=str(folder), frame_cap=200, noop_max=3, **published)
    printed = capsys.readouterr().out
    for words in ("84x84 grey", "stack 4", "4 frames a step", "sticky actions 0.25", "minimal actions",
                  "up to 3 no-ops", "cap 200 frames", "a lost life ends the training episode", "clipped to their sign"):
        assert words in printed
    config = json.loads((folder / "config.json").read_text())
    assert config["atari"]["sticky"] == 0.25 and config["atari"]["frame_cap"] == 200
    file = folder / "model.safetensors"
    assert file.stat().st_size < 1_000_000 + sum(v.numpy().nbytes for v in policy.trainable_variables)
    loaded = load(str(file))
    assert to_watch(loaded.info, "ALE/Pong-v5") == AtariOptions(sticky=0.25, full_action_space=False, frame_cap=200,
                                                                noop_max=3, life_loss=False)
    assert to_watch(loaded.info, "PongNoFrameskip-v4").sticky is None
    obs = np.random.default_rng(0).integers(0, 256, (5, 4, 84, 84), dtype=np.uint8)
    for mine, theirs in zip(policy.step(obs, deterministic=True), loaded.step(obs, deterministic=True), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    with pytest.warns(UserWarning, match="3 of 3 games were cut off after 200 frames"):
        assert evaluate(loaded, "ALE/Pong-v5", episodes=3).shape == (3,)


def test_evaluation_counts_whole_games():
    options = AtariOptions(noop_max=0)
    venv = games("BreakoutNoFrameskip-v4", 1)
    policy = policy_for(venv)
    policy.info = {"env": "BreakoutNoFrameskip-v4", "atari": vars(options)}
    returns = evaluate(policy, "BreakoutNoFrameskip-v4", episodes=1, deterministic=False, seed=2)
    whole, total, over = reference("BreakoutNoFrameskip-v4", 1, noop_max=0), 0.0, False
    from baselines_lite.common.system.seeding import env_seeds, stream

    rng, act = stream(2, "evaluation"), policy.actor()
    obs, _ = whole.reset(seed=env_seeds(2, 0, 1, "evaluation environments"))
    while not over:
        obs, rewards, terminated, _, _ = whole.step(act(policy.features(obs), policy.pdtype.noise(rng, (1,))).actions)
        total, over = total + rewards[0], terminated[0]
    assert returns.tolist() == [total]


@pytest.mark.parametrize(("flags", "words"), [
    (["--env=Pong-v4"], "Pong-v4 skips a random number of frames"),
    (["--env=CartPole-v1", "--sticky=0.25"], "sticky is for Atari games"),
    (["--env=PongNoFrameskip-v4", "--sticky=2"], "sticky must be at most 1"),
    (["--env=PongNoFrameskip-v4", "--num_layers=2"], "num_layers"),
    (["--env=PongNoFrameskip-v4", "--convs=32x8"], "is no stack of convolutions"),
    (["--env=PongNoFrameskip-v4", "--convs=32@8/4,64@30/2"], "too large for pictures of 84x84"),
    (["--env=CartPole-v1", "--network=cnn"], "convolutions need pictures"),
    (["--env=CartPole-v1", "--dtype=bfloat16"], "bfloat16 is for convolutional networks"),
    (["--env=PongNoFrameskip-v4", "--dtype=float16"], "bfloat16 or float32"),
    (["--env=PongNoFramskip-v4"], "PongNoFrameskip-v4"),
])
def test_bad_input_gets_one_sentence(main, tmp_path, flags, words):
    done = main("--alg=ppo2", *flags)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and words in done.stderr, done.stderr
    assert not list(tmp_path.iterdir())


def test_from_the_command_line_to_videos(main, tmp_path):
    done = main("--env=PongNoFrameskip-v4", "--num_timesteps=64", "--network=cnn", "--convs=8@8/4,8@4/4",
               "--num_hidden=32", "--num_env=2", "--nsteps=16", "--frame_cap=160", "--log_path=log", "--dtype=bfloat16",
               "--save_video_interval=32", "--save_video_length=8", "--threads=1", "--eval_interval=1",
               "--eval_episodes=2")
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "log/videos").glob("*.mp4"))
    header, *rows = reproducible(tmp_path / "log/evaluations.csv")
    assert len(rows) == 2 and all(float(row[header.index("eplenmean")]) == 40 for row in rows)  # to the frame cap
    done = main("--load_path=log/model.safetensors", "--play", "--play_episodes=2", "--log_path=watched")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("cut off by the time limit") == 2
    video, = (tmp_path / "watched").rglob("*.mp4")
    assert count_frames_and_secs(str(video))[0] >= 2 * 40


@pytest.mark.parametrize(("env_id", "options"), [
    ("BreakoutNoFrameskip-v4", {}), ("ALE/Breakout-v5", {"frame_stack": 3}), ("PongNoFrameskip-v4", {"frame_cap": 90})])
def test_replayed_games_are_what_was_seen(env_id, options):
    """Frames are stored once; lost lives, games' ends and the frame cap come back to the bit, inside segments too."""
    venv = games(env_id, **options)
    policy = ActorQ(venv.single_observation_space, venv.single_action_space, network="cnn_small",
                    network_options=SMALL_CNN)
    collector = Collector(venv, policy, 20, Comm(), seed=1)
    buffer = Replay(policy, 20, num_env=2, nsteps=20, stack=venv.options.frame_stack)
    assert buffer.nbytes < 2 * 84 * 84 * (21 + venv.options.frame_stack)
    lives, begun, cut = 0, 0, 0
    for _ in range(25):
        segments = segments_of(policy, collector.collect())
        buffer.put(segments)
        drawn = buffer.draw(np.random.default_rng(0))
        for name, array in segments.data.items():
            np.testing.assert_array_equal(drawn.data[name], array, err_msg=name)
        order = np.argsort(segments.ends.segments, kind="stable")
        for mine, theirs in zip(segments.ends, drawn.ends, strict=True):
            np.testing.assert_array_equal(mine[order], theirs)
        fresh = ~segments.data["obs"][:, 1:, ..., :-1].any(axis=(2, 3, 4))
        begun, cut = begun + fresh.sum(), cut + len(order)
        lives += (segments.data["terminated"] & ~fresh).sum()
    assert (cut if "frame_cap" in options else lives) > 5 and begun > 1


def test_a_vector_environment_of_games_can_be_given():
    venv = make_vec_env("BreakoutNoFrameskip-v4", 2, atari=AtariOptions(clip_rewards=False))
    policy = ppo2.learn(venv, 64, **TINY)
    assert policy.info["atari"]["clip_rewards"] is False and policy.network == "cnn_small"


def test_a_processor_without_bfloat16_is_told_so(monkeypatch, capsys, uncompiled):
    from baselines_lite.common.system import tf_setup

    for gains in (True, False):
        monkeypatch.setattr(tf_setup, "gains_from_bfloat16", lambda gains=gains: gains)
        ppo2.learn("PongNoFrameskip-v4", 32, dtype="bfloat16", **TINY)
        assert ("gains nothing" in capsys.readouterr().out) == (not gains)


def test_the_docs_list_the_differences_from_the_original():
    text = (ROOT / "docs/atari.md").read_text()
    for words in ("FIRE", "no-ops", "108,000 frames"):
        assert words in text
    with pytest.raises(UserError, match="NoFrameskip"):
        make_vec_env("Pong-v0")
