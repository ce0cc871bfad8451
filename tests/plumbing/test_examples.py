"""The examples do what their first lines say."""

import re
import runpy
import subprocess
import sys
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf

from baselines_lite import UserError, load, ppo2
from baselines_lite.common.envs.env_state import env_state, restore_env
from baselines_lite.common.networks.distributions import DiagGaussian
from baselines_lite.common.networks.flat import get_flat, set_flat
from baselines_lite.common.sampling.replay_buffer import Transitions
from baselines_lite.common.system.mpi import Comm
from examples import corridor, numpy_policy, reinforce, sac
from examples.callback import UntilCertain
from examples.sac.policy import SoftActorCritic, squashed
from examples.sac.sac import STATS, Update
from tests.conftest import MPIRUN, ROOT
from tests.plumbing.test_table import SHORT, Anything

QUIET = {"print_interval": 1e9}


def test_the_corridor_keeps_the_rules_and_its_state(main):
    done = main("check", "examples.corridor:Corridor-v0", "--steps=200")
    assert done.returncode == 0 and "its state can be kept in checkpoints" in done.stdout
    env = gym.make("Corridor-v0", length=3)
    env.reset(seed=0)
    env.unwrapped.set_state({"position": 2, "random": env.unwrapped.np_random})
    obs, reward, terminated, *_ = env.step(1)
    assert (obs.tolist(), reward, terminated) == ([1.0], 1.0, True)


def test_the_corridor_goes_on_with_the_same_starts():
    one, other = (gym.make("Corridor-v0", length=100) for _ in range(2))
    for seed, env in enumerate((one, other)):
        env.reset(seed=seed)
    one.reset()
    restore_env(other, env_state(one))
    assert [one.reset()[0] for _ in range(9)] == [other.reset()[0] for _ in range(9)]


def test_a_policy_learns_the_corridor():
    """A plain class too, with a network of one's own."""
    callback = UntilCertain(limit=0.3)
    policy = ppo2.learn(corridor.Corridor, 30_000, network="examples.gated:gated", width=16, nsteps=64, num_env=4,
                        lr="3e-3", seed=1, callback=callback, **QUIET)
    assert min(callback.entropies.values()) < 0.3 < max(callback.entropies.values())
    assert [policy.predict(np.array([x / 10], np.float32), deterministic=True)[0] for x in range(10)] == [1] * 10


BOXES = {"bounded": gym.spaces.Box(np.float32([[0, -10]]), np.float32([[100, 1]])),
         "half": gym.spaces.Box(np.float32([-np.inf, 0]), np.float32([0.5, 90])),
         "discrete": gym.spaces.Discrete(3, start=4)}


@pytest.mark.parametrize("options", [
    {"normalize_observations": True}, {"layer_norm": True}, {"activation": "relu", "sizes": "8,16,4"},
    {"activation": "elu", "layer_norm": True, "normalize_observations": True, "value_network": "shared"}], ids=str)
@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1", *BOXES])
def test_numpy_does_what_the_policy_does(env, options, tmp_path, uncompiled):
    make = (lambda: Anything(gym.spaces.Box(-9, 9, (2, 2)), BOXES[env])) if env in BOXES else env
    policy = ppo2.learn(make, 64, **SHORT["ppo2"], **QUIET, **{"num_hidden": 8, **options})
    policy.pi_head.w.assign(np.random.default_rng(1).normal(size=policy.pi_head.w.shape).astype(np.float32))
    path = str(tmp_path / "m.safetensors")
    policy.save(path)
    act, about = numpy_policy.policy_of(path)
    assert about["algorithm"] == "ppo2" and (env in BOXES or about["env"] == env)
    seen = np.random.default_rng(0).normal(size=(50, *policy.observation_space.shape)).astype(np.float32)
    taken = policy.predict(seen, deterministic=True)[0]
    np.testing.assert_allclose([act(obs) for obs in seen], taken, rtol=1e-4, atol=1e-4)
    assert len(np.unique(taken)) > 1


def test_numpy_plays_a_model_file(tmp_path, uncompiled):
    policy = ppo2.learn("CartPole-v1", 64, **SHORT["ppo2"], **QUIET, num_hidden=8)
    path = str(tmp_path / "m.safetensors")
    policy.save(path)
    env, length, over = gym.make("CartPole-v1"), 0, False
    obs, _ = env.reset(seed=0)
    while not over:
        obs, _, *ends, _ = env.step(policy.predict(obs, deterministic=True)[0])
        length, over = length + 1, any(ends)

    def play(*arguments):
        done = subprocess.run([sys.executable, "examples/numpy_policy.py", *arguments], cwd=ROOT, capture_output=True,
                              text=True)
        return done.returncode, done.stdout, done.stderr.splitlines()[-1:]

    assert play(path) == play(path, "CartPole-v1") == (0, f"return {length}\n", [])
    for arguments, why in (((), "required: model"), ((f"{path}.none",), "cannot use"), (("README.md",), "cannot use")):
        status, _, told = play(*arguments)
        assert status and why in told[0]


@pytest.mark.parametrize(("env", "options", "why"), [
    ("CartPole-v1", {"network": "lstm", "nlstm": 8}, "network is lstm"),
    ("FrozenLake-v1", {"num_hidden": 8}, "observation space is Discrete"),
    (lambda: Anything(gym.spaces.Box(0, 9, (2,), np.uint8), BOXES["half"]), {"num_hidden": 8}, "are bytes"),
    (lambda: Anything(BOXES["half"], gym.spaces.MultiBinary(2)), {"num_hidden": 8}, "action space is MultiBinary")])
def test_numpy_refuses_what_it_would_do_wrongly(env, options, why, tmp_path, uncompiled):
    path = str(tmp_path / "m.safetensors")
    ppo2.learn(env, 64, **SHORT["ppo2"], **QUIET, **options).save(path)
    with pytest.raises(ValueError, match=why):
        numpy_policy.policy_of(path)


@pytest.mark.parametrize("own", [
    ("--alg=examples.reinforce", "--env=CartPole-v1", "--network=mlp"),
    ("--alg=examples.reinforce", "--env=CartPole-v1", "--network=lstm"),
    ("--alg=examples.sac", "--env=Pendulum-v1", "--sizes=8,8", "--learning_starts=16", "--train_steps=2",
     "--batch_size=8", "--buffer_size=40")])
def test_an_algorithm_of_ones_own_goes_on_to_the_bit(own, main, tmp_path, uncompiled):
    flags = [*own, "--num_env=2", "--nsteps=8", "--checkpoint_seconds=0", "--print_interval=1e9"]
    assert main(*flags, "--num_timesteps=96", "--log_path=whole").returncode == 0
    assert main(*flags, "--num_timesteps=48", "--log_path=part").returncode == 0
    assert main(*flags, "--num_timesteps=96", "--log_path=part", "--resume=auto").returncode == 0
    whole, part = (load(str(tmp_path / name / "model.safetensors")).contents() for name in ("whole", "part"))
    assert all(np.array_equal(np.array(a), np.array(part[name])) for name, a in whole.items())


def test_the_guide_leads_from_an_empty_folder_to_a_tested_algorithm(tmp_path, monkeypatch, uncompiled):
    page = (ROOT / "docs/new_algorithm.md").read_text().split("## From a replay buffer")[0]
    blocks = dict(re.findall(r'^```python title="(.*?)"\n(.*?)^```', page, re.DOTALL | re.MULTILINE))
    assert list(blocks) == ["config.py", "reinforce.py", "__init__.py", "test_myalg.py"]
    (tmp_path / "myalg").mkdir()
    for name, text in blocks.items():
        whole = re.fullmatch(r'--8<-- "(.*)"\n', text)
        place = tmp_path if name.startswith("test_") else tmp_path / "myalg"
        (place / name).write_text((ROOT / whole[1]).read_text() if whole else text)
    monkeypatch.syspath_prepend(tmp_path)
    try:
        runpy.run_path(str(tmp_path / "test_myalg.py"))["test_it_goes_on_to_the_bit"](tmp_path / "log")
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "myalg"]:
            del sys.modules[name]


@pytest.mark.slow
def test_reinforce_learns():
    found = []
    reinforce.learn("CartPole-v1", 200_000, seed=0, callback=lambda after: found.append(after.figures["eprewmean"]))
    assert found[-1] > 150


def test_the_squashed_gaussian_against_numpy():
    rng = np.random.default_rng(0)
    mean, logstd, u = rng.normal(size=(3, 50, 2))
    actions, logp = squashed(DiagGaussian(tf.constant(mean), tf.constant(logstd)), tf.constant(u))
    z = (u - mean) / np.exp(logstd)
    expected = (-z**2 / 2 - logstd - np.log(2 * np.pi) / 2 - np.log(1 - np.tanh(u) ** 2)).sum(axis=1)
    np.testing.assert_allclose(actions, np.tanh(u), rtol=1e-12)
    np.testing.assert_allclose(logp, expected, rtol=1e-9)
    far = squashed(DiagGaussian(tf.zeros([1, 1]), tf.zeros([1])), tf.fill([1, 1], 40.0))[1]  # tanh rounds to 1
    np.testing.assert_allclose(far, -800 - np.log(2 * np.pi) / 2 + 80 - np.log(4), rtol=1e-6)


@pytest.fixture
def soft():
    """An Update of a small policy in float64, with a minibatch and its noise."""
    rng, box = np.random.default_rng(1), gym.spaces.Box(np.float32([-1, 0]), np.float32([3, 10]))
    policy = SoftActorCritic(gym.spaces.Box(-1, 1, (3,)), box, network_options={"num_hidden": 6}, dtype=tf.float64)
    theta = get_flat(policy.trainable_variables)
    set_flat(policy.trainable_variables, theta + 0.3 * rng.normal(size=theta.size))
    update = Update(SimpleNamespace(config=sac.Config(gamma=0.9, tau=0.1), policy=policy, buffer=None, comm=Comm(),
                                    run=SimpleNamespace(seed=0)))
    for v in update.target.q_variables:
        v.assign_add(0.1 * rng.normal(size=v.shape))
    obs, next_obs = rng.normal(size=(2, 7, 3))
    batch = Transitions(obs, rng.uniform(-1, 1, size=(7, 2)), rng.normal(size=7), next_obs, np.arange(7) < 3)
    return update, Transitions(*map(tf.constant, batch)), tf.constant(rng.normal(size=(2, 7, 2)))


def test_sac_targets_and_the_gradient_of_the_temperature_against_numpy(soft):
    update, batch, noise = soft
    policy, alpha = update.policy, np.exp(np.array(update.policy.log_alpha))
    actions, logp = policy.draw(batch.next_obs, noise[1])
    x = np.concatenate([batch.next_obs, actions], axis=1)
    q = [head.numpy()(net.numpy()(x))[:, 0] for net, head in zip(update.target.q_nets, update.target.q_heads)]
    soft_value = np.minimum(*q) - alpha * logp.numpy()
    y = batch.rewards.numpy() + 0.9 * np.where(batch.terminated, 0, soft_value)
    np.testing.assert_allclose(update.targets(batch, noise[1]), y, rtol=1e-9)
    found = update.gradient(batch, noise)[0][-1]
    np.testing.assert_allclose(found, -alpha * (policy.draw(batch.obs, noise[0])[1].numpy() - 2).mean(), rtol=1e-9)


def test_sac_descends_each_loss_by_its_own_parameters(soft):
    """Against finite differences in a few directions; and Q' follows Q."""
    update, batch, noise = soft
    g, rng = iter(update.gradient(batch, noise)[0]), np.random.default_rng(2)
    for part, name in zip(update.parts[:2], ("policy_loss", "value_loss")):
        theta, found = get_flat(part), np.concatenate([next(g).numpy().ravel() for _ in part])
        for direction in rng.normal(size=(3, theta.size)):
            losses = []
            for step in (1e-6, -1e-6):
                set_flat(part, theta + step * direction)
                losses.append(update.gradient(batch, noise)[1][STATS.index(name)])
            np.testing.assert_allclose(found @ direction, (losses[0] - losses[1]) / 2e-6, rtol=1e-5)
        set_flat(part, theta)
    old, new = get_flat(update.target.q_variables), get_flat(update.policy.q_variables)
    update.follow()
    np.testing.assert_allclose(get_flat(update.target.q_variables), 0.9 * old + 0.1 * new, rtol=1e-12)


def test_a_soft_policy_acts_as_it_is_differentiated_and_comes_back_from_its_file(tmp_path):
    policy, obs = SoftActorCritic(gym.spaces.Box(-1, 1, (3,)), gym.spaces.Box(-2, 2, (2,))), np.ones((1, 3), np.float32)
    policy.save(str(tmp_path / "m"))
    for each in (policy, load(str(tmp_path / "m"))):
        noise = each.noise(np.random.default_rng(0), (1,))
        drawn, logp = each.draw(tf.constant(obs), tf.constant(noise))
        actions = each.actor()(obs, noise).actions
        np.testing.assert_allclose(actions, drawn, rtol=1e-5)
        np.testing.assert_allclose(each.values_and_logp(obs, actions)[1], logp, rtol=1e-4)
        np.testing.assert_allclose(each.predict(obs, deterministic=True)[0], 2 * np.tanh(each.pi(obs).mean), rtol=1e-5)


@pytest.mark.parametrize(("env", "options", "why"), [
    ("CartPole-v1", {}, "the action space Discrete"), ("Pendulum-v1", {"network": "lstm"}, "memory")])
def test_what_sac_cannot_train_is_refused(env, options, why):
    with pytest.raises(UserError, match=f"{why}.* not support"):
        sac.learn(env, 2000, **options)


@pytest.mark.slow
def test_sac_learns():
    returns = []
    sac.learn("Pendulum-v1", 20_000, seed=0,
              callback=lambda after: returns.append(after.window.last and after.window.last[-1].r))
    assert np.mean(returns[:-100:-4]) > -200  # of the last 25 episodes, four updates each


def test_a_script_of_ones_own_under_mpirun(tmp_path, uncompiled):
    policy = ppo2.learn("CartPole-v1", 32, **SHORT["ppo2"], **QUIET)
    policy.save(str(tmp_path / "m"))
    done = subprocess.run([str(MPIRUN), "-np", "2", sys.executable, "examples/mpi_script.py", str(tmp_path / "m")],
                          cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "over 10 episodes of 2 ranks" in done.stdout, done.stderr
