"""Deep Q-learning's targets, loss, network and exploration against figures worked out by hand."""

import csv

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf

from baselines_lite import UserError, load
from baselines_lite.common.networks.flat import get_flat
from baselines_lite.common.optim import losses
from baselines_lite.common.optim.mpi_adam import MpiAdam
from baselines_lite.common.policies.parameter_noise import ParameterNoise
from baselines_lite.common.policies.q_policy import QPolicy
from baselines_lite.common.sampling.replay_buffer import Transitions
from baselines_lite.common.system.mpi import Comm
from baselines_lite.deepq.config import Config
from baselines_lite.deepq.deepq import Update, exploration, mean_kl, td_targets

BOX, THREE = gym.spaces.Box(-1, 1, (4,)), gym.spaces.Discrete(3, start=5)


def test_single_and_double_targets():
    q_target = tf.constant([[1.0, 5.0], [2.0, -3.0], [4.0, 4.5]])
    q_online = tf.constant([[9.0, 1.0], [0.0, 1.0], [7.0, 8.0]])
    rewards, terminated = tf.constant([1.0, 2.0, 3.0]), tf.constant([False, False, True])
    np.testing.assert_allclose(td_targets(rewards, terminated, q_target, q_target, 0.5), [3.5, 3.0, 3.0])
    np.testing.assert_allclose(td_targets(rewards, terminated, q_target, q_online, 0.5), [1.5, 0.5, 3.0])


def test_hubers_gradient_is_the_clipped_error():
    errors = tf.constant([-3.0, -1.0, -0.25, 0.0, 0.5, 1.0, 40.0])
    with tf.GradientTape() as tape:
        tape.watch(errors)
        loss = losses.huber(errors)
    np.testing.assert_allclose(loss, [2.5, 0.5, 0.03125, 0.0, 0.125, 0.5, 39.5])
    np.testing.assert_allclose(tape.gradient(loss, errors), [-1, -1, -0.25, 0, 0.5, 1, 1])


def test_dueling_advantages_have_mean_zero_and_numpy_agrees():
    features = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    for dueling in (True, False):
        policy = QPolicy(BOX, THREE, dueling=dueling, hiddens="16,8", seed=3)
        q = policy.q(tf.constant(features)).numpy()
        np.testing.assert_allclose(policy.q_function()(features), q, atol=1e-5)
        if dueling:
            value = policy.v_head(policy.net(tf.constant(features))).numpy()
            np.testing.assert_allclose((q - value).mean(axis=1), 0, atol=1e-6)
    assert len(QPolicy(BOX, THREE, hiddens=None, dueling=False).a_head.layers) == 1


def test_epsilon_from_start_to_end():
    cfg = Config(exploration_fraction=0.2, exploration_initial_eps=0.9, exploration_final_eps=0.1)
    np.testing.assert_allclose([exploration(cfg, p) for p in (0, 0.1, 0.2, 0.7, 1)], [0.9, 0.5, 0.1, 0.1, 0.1])


def test_actions_are_greedy_or_uniform():
    policy = QPolicy(BOX, THREE, epsilon=0.3, seed=1)
    features = np.tile(np.random.default_rng(1).normal(size=(1, 4)).astype(np.float32), (30_000, 1))
    noise = policy.noise(np.random.default_rng(2), (30_000,))
    actions = policy.actor()(features, noise).actions
    greedy = policy.q_function()(features[:1]).argmax()
    shares = np.bincount(actions, minlength=3) / 30_000
    expected = np.full(3, 0.1)
    expected[greedy] += 0.7
    np.testing.assert_allclose(shares, expected, atol=0.01)
    assert (policy.actor()(features[:5], None).actions == greedy).all()
    actions, values, state, logp = policy.step(features[:100])
    np.testing.assert_allclose(logp, np.log(expected[actions]), rtol=1e-5)
    assert state is None and values.shape == (100,) and set(policy.to_env(np.arange(3))) == {5, 6, 7}


def batch_of(rng, size, dtype=np.float64):
    obs, next_obs = rng.normal(size=(2, size, 4)).astype(dtype)
    return Transitions(obs, rng.integers(3, size=size), rng.normal(size=size), next_obs, rng.random(size) < 0.3)


@pytest.mark.parametrize("double_q", [True, False])
def test_a_weighted_step_of_a_linear_q_by_hand(double_q):
    policy, rng = QPolicy(BOX, THREE, network_options={"num_layers": 0}, hiddens=None, dueling=False,
                          dtype=tf.float64), np.random.default_rng(5)
    w, w_target = rng.normal(size=(2, 4, 3))
    policy.a_head.layers[0].w.assign(w)
    update = Update(policy, MpiAdam(policy.trainable_variables, Comm()), Config(gamma=0.9, double_q=double_q))
    update.target.a_head.layers[0].w.assign(w_target)
    batch, weights = batch_of(rng, 6), rng.random(6)
    rows = np.arange(6)
    best = (batch.next_obs @ (w if double_q else w_target)).argmax(axis=1)
    y = batch.rewards + 0.9 * ~batch.terminated * (batch.next_obs @ w_target)[rows, best]
    errors = (batch.obs @ w)[rows, batch.actions] - y
    gradient = batch.obs.T @ (np.eye(3)[batch.actions] * (weights * np.clip(errors, -1, 1))[:, None]) / 6
    (vector,), _, _ = update.gradient(Transitions(*map(tf.constant, batch)), tf.constant(weights))
    np.testing.assert_allclose(vector[3:15], gradient.ravel(), atol=1e-12)  # behind the biases
    found, _ = update.step(batch, weights, 0.01)
    np.testing.assert_allclose(found, errors, atol=1e-12)
    np.testing.assert_allclose(policy.a_head.layers[0].w, w - 0.01 * np.sign(gradient), atol=1e-6)  # Adam's first step
    np.testing.assert_array_equal(update.target.a_head.layers[0].w, w_target)
    update.copy_to_target()
    np.testing.assert_array_equal(*(get_flat(x.trainable_variables) for x in (update.target, policy)))


def test_parameter_noise_leaves_layer_norm_and_finds_its_strength():
    options = dict(network_options={"layer_norm": True, "num_hidden": 32}, seed=1)
    policy, noisy = QPolicy(BOX, THREE, **options), QPolicy(BOX, THREE, **options)
    noise = ParameterNoise(policy, noisy, np.random.default_rng(0), std=0.02)
    features = np.random.default_rng(1).normal(size=(64, 4)).astype(np.float32)
    q = policy.q_function()(features)
    distances = []
    for _ in range(400):
        noise.adapt(lambda: distances.append(mean_kl(q, noisy.q_function()(features))) or distances[-1], 0.05)
    assert 0.03 < np.mean(distances[-100:]) < 0.1
    for mine, theirs in zip(policy.parameters, noisy.parameters, strict=True):
        assert np.array_equal(mine, theirs) == ("/ln" in mine.label), mine.label
    np.testing.assert_allclose(mean_kl(np.log([[0.5, 0.5]]), np.log([[0.9, 0.1]]) + 7),
                               0.5 * np.log(0.5 / 0.9) + 0.5 * np.log(0.5 / 0.1))


def test_the_file_gives_the_policy_back(tmp_path):
    policy = QPolicy(BOX, THREE, hiddens="8", epsilon=0.25, network_options={"num_hidden": 5}, seed=9)
    policy.save(str(tmp_path / "m"))
    loaded = load(str(tmp_path / "m"))
    obs = np.random.default_rng(0).normal(size=(20, 4))
    np.testing.assert_array_equal(*(p.step(obs, deterministic=True)[1] for p in (policy, loaded)))
    assert loaded.epsilon == 0.25 and loaded.settings == policy.settings


@pytest.mark.parametrize(("options", "message"), [
    ({"nsteps": 10, "train_freq": 4}, "multiple of train_freq=4"), ({"num_timesteps": 900}, "would train nothing"),
    ({"buffer_size": 8}, "buffer_size=8 must be at least 128"), ({"hiddens": "a,b"}, "no layer sizes"),
    ({"network": "lstm"}, "does not support")])
def test_what_cannot_be_meant_is_refused(options, message):
    from baselines_lite import deepq

    with pytest.raises(UserError, match=message):
        deepq.learn("CartPole-v1", options.pop("num_timesteps", 2000), **options)


def test_gradient_steps_and_copies_are_counted_by_the_steps_of_all_environments(tmp_path, monkeypatch):
    from baselines_lite import deepq
    from baselines_lite.deepq.deepq import Update as Real

    copies = []
    monkeypatch.setattr(Real, "copy_to_target", lambda self: copies.append(1))
    deepq.learn("CartPole-v1", 1200, num_env=2, nsteps=50, train_freq=5, learning_starts=300, buffer_size=1000,
                target_network_update_freq=250, log_path=str(tmp_path), print_interval=1e9)
    with (tmp_path / "progress.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["gradient_steps"]) for row in rows] == [0, 0, 0] + [10] * 9  # of 100 steps each
    assert len(copies) == 4 and float(rows[-1]["epsilon"]) == 0.01
    assert {row["policy_loss"] for row in rows} == {""}
    assert [row["value_loss"] == "nan" for row in rows] == [True] * 3 + [False] * 9


@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_network_that_diverges_ends_the_run_by_the_name_of_its_loss():
    from baselines_lite import deepq

    with pytest.raises(UserError, match="after update 2 value_loss is not finite"):
        deepq.learn("CartPole-v1", 200, nsteps=20, learning_starts=20, batch_size=4, lr=1e30, print_interval=1e9)


def test_parameter_noise_holds_the_distance_that_epsilon_stands_for_though_rewards_are_scaled(monkeypatch):
    from baselines_lite import deepq

    distances, wanted, adapt = [], [], ParameterNoise.adapt

    def recording(self, distance, goal):
        wanted.append(goal)
        adapt(self, lambda: distances.append(distance()) or distances[-1], goal)

    monkeypatch.setattr(ParameterNoise, "adapt", recording)
    deepq.learn("CartPole-v1", 1800, param_noise=True, learning_starts=500, exploration_fraction=0.2, batch_size=32,
                exploration_final_eps=0.1, reward_scale=0.02, print_interval=1e9)
    assert wanted[-1] == pytest.approx(-np.log(0.95))  # nats
    assert wanted[-1] / 4 < np.mean(distances[-200:]) < wanted[-1] * 4
