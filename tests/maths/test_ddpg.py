"""DDPG's gradients, targets, return statistics and noise against figures worked out otherwise."""

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf

from baselines_lite import UserError, ddpg, load
from baselines_lite.common.networks.flat import flatten, get_flat, set_flat
from baselines_lite.common.policies.deterministic_policy import DeterministicPolicy
from baselines_lite.common.sampling.replay_buffer import Transitions
from baselines_lite.common.system.mpi import Comm
from baselines_lite.ddpg.config import Config
from baselines_lite.ddpg.ddpg import STATS, Returns, Update
from baselines_lite.ddpg.exploration import Gaussian, NoisyParameters, OrnsteinUhlenbeck

BOX = gym.spaces.Box(-1, 1, (3,))
UNEVEN = gym.spaces.Box(np.array([-1.0, 0.0], np.float32), np.array([3.0, 10.0], np.float32))


def make(cfg=None, **options):
    policy = DeterministicPolicy(BOX, UNEVEN, dtype=tf.float64, seed=2, **options)
    rng = np.random.default_rng(3)
    set_flat(policy.trainable_variables, get_flat(policy.trainable_variables)
             + 0.1 * rng.normal(size=get_flat(policy.trainable_variables).size))
    update = Update(policy, cfg or Config(), Comm())
    for v in update.target.trainable_variables:
        v.assign_add(0.05 * rng.normal(size=v.shape))
    return policy, update


def batches(rng, count=3, size=5):
    obs, next_obs = rng.normal(size=(2, count, size, 3))
    return Transitions(obs, rng.uniform(-1, 1, size=(count, size, 2)), rng.normal(size=(count, size)), next_obs,
                       rng.random((count, size)) < 0.3)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bounds_may_be_as_far_apart_as_numbers_go(dtype):
    most = np.finfo(dtype).max
    space = gym.spaces.Box(np.array([-most, 0, -most], dtype), np.array([most, most, 1], dtype), dtype=dtype)
    actions = np.array([[-1] * 3, [0] * 3, [1] * 3], np.float32)
    np.testing.assert_array_equal(DeterministicPolicy(BOX, space).to_env(actions),
                                  [[-most, 0, -most], [0, most / 2, -most / 2], [most, most, 0]])


def theta_of(policy):
    """All parameters, the actor's first."""
    return get_flat([*policy.pi_variables, *policy.q_variables])


def losses_at(policy, update, theta, batch, cfg):
    """(policy loss, value loss) at other parameters; the policy loss climbs the present critic."""
    moved = policy.copy()
    set_flat([*moved.pi_variables, *moved.q_variables], theta)
    q_next = update.target.q(batch.next_obs, update.target.pi(batch.next_obs)).numpy()
    y = batch.rewards + cfg.gamma * ~batch.terminated * q_next
    value_loss = np.square(moved.q(batch.obs, batch.actions).numpy() - y).mean()
    return -policy.q(batch.obs, moved.pi(batch.obs)).numpy().mean(), value_loss


def test_the_gradient_against_finite_differences_with_the_critic_frozen():
    cfg = Config(gamma=0.9)
    policy, update = make(cfg, network_options={"num_hidden": 6})
    rng = np.random.default_rng(0)
    data = batches(rng, count=1)
    batch = Transitions(*(a[0] for a in data))
    theta = theta_of(policy)
    found = flatten(update.gradient(tf.constant(0), Transitions(*map(tf.constant, data)))[0])
    for i in rng.choice(theta.size, 60, replace=False):
        e = np.zeros(theta.size)
        e[i] = 1e-6
        up, down = (sum(losses_at(policy, update, theta + s * e, batch, cfg)) for s in (1, -1))
        np.testing.assert_allclose(found[i], (up - down) / 2e-6, rtol=1e-5, atol=1e-7)


def test_l2_is_of_the_hidden_weights_alone():
    policy, update = make(network_options={"num_hidden": 6, "layer_norm": True})
    assert [w.shape for w in policy.q_weights()] == [(5, 6), (6, 6)]
    data, gradients = Transitions(*map(tf.constant, batches(np.random.default_rng(0), count=1))), []
    for l2 in (0.0, 0.1):
        update.cfg = Config(critic_l2_reg=l2)
        g, _ = update.gradient(tf.constant(0), data)
        gradients.append(policy.parameters.split(g, update.optimizer.variables))
    decayed = {layer.w for layer in policy.q_net.layers if hasattr(layer, "w")}
    for p in policy.parameters:
        np.testing.assert_allclose(gradients[1][p] - gradients[0][p], (0.1 if p in decayed else 0) * p, atol=1e-12)


def test_a_round_is_its_steps_one_after_the_other_and_targets_follow():
    (policy, update), (twin, other) = (make(Config(tau=0.1)) for _ in range(2))
    data = Transitions(*map(tf.constant, batches(np.random.default_rng(1))))
    rates, k = tf.constant([1e-3, 2e-3], tf.float64), get_flat(policy.pi_variables).size
    for i in range(3):
        before, target = theta_of(twin), theta_of(other.target)
        other.step(*other.gradient(tf.constant(i), data), rates)
        np.testing.assert_allclose(theta_of(other.target), 0.9 * target + 0.1 * theta_of(twin), rtol=1e-12)
        moved = np.abs(theta_of(twin) - before)
        assert i or (moved[:k].max() <= 1.001e-3 and moved[k:].max() > 1.9e-3)
    stats = update(Transitions(*(x.numpy() for x in data)), 1e-3, 2e-3)
    np.testing.assert_allclose(theta_of(policy), theta_of(twin), rtol=1e-9)
    np.testing.assert_allclose(theta_of(update.target), theta_of(other.target), rtol=1e-9)
    assert np.isnan(stats.pop("entropy")) and np.isfinite(list(stats.values())).all()


def test_running_moments_of_returns():
    y = np.random.default_rng(2).normal(3, 5, size=(4, 10))
    returns = Returns(*(tf.constant(0.0, tf.float64) for _ in range(3)))
    assert returns.std == 1
    for part in y:
        away = part - returns.mean
        returns = returns.merged(10.0, tf.reduce_mean(away), tf.reduce_mean(tf.square(away)))
    np.testing.assert_allclose([returns.count, returns.mean, returns.var], [40, y.mean(), y.var()], rtol=1e-12)


def test_pop_art_keeps_what_is_predicted():
    policy, update = make()
    old, new = (Returns(*map(tf.constant, np.array(v))) for v in ((9.0, -2.0, 4.0), (10.0, 5.0, 0.3)))
    features, actions = np.random.default_rng(4).normal(size=(2, 8, 3))
    before = old.mean + old.std * policy.q(tf.constant(features), tf.constant(actions[:, :2]))
    update.preserve(policy.q_head, old, new)
    after = new.mean + new.std * policy.q(tf.constant(features), tf.constant(actions[:, :2]))
    np.testing.assert_allclose(after, before, rtol=1e-12)


def test_pop_art_is_for_the_target_network_too_and_begins_with_the_second_step():
    """Both networks predict what they did, in the new units; what the gradient step itself changes is left out."""
    policy, update = make(Config(normalize_returns=True, popart=True, batch_size=8, tau=1e-15))
    features, actions = (tf.constant(x) for x in (np.random.default_rng(4).normal(size=(8, 3)),
                                                  np.random.default_rng(4).uniform(size=(8, 2))))

    def predictions():
        return [update.returns.mean + update.returns.std * of.q(features, actions) for of in (policy, update.target)]

    still, g = tf.constant([0.0, 0.0], tf.float64), [tf.zeros_like(v) for v in update.optimizer.variables]
    for number, (shift, square) in enumerate(((3.0, 10.0), (5.0, 40.0), (-9.0, 100.0))):
        before = predictions()
        update.step(g, tf.constant([0.0] * len(STATS) + [shift, square], tf.float64), still)
        for mine, theirs in zip(predictions(), before, strict=True):
            assert np.allclose(mine, theirs, rtol=1e-12) == (number > 0)


def test_gaussian_noise_is_independent_and_stays_within_the_bounds():
    policy = DeterministicPolicy(BOX, UNEVEN)
    noise = Gaussian(policy, 0.3, np.random.default_rng(0))
    x = noise.draw(np.zeros(50_000, bool))
    np.testing.assert_allclose([x.std(), x.mean()], [0.3, 0.0], atol=5e-3)
    np.testing.assert_allclose(np.corrcoef(x.T), np.eye(x.shape[1]), atol=0.02)
    features = np.zeros((2000, *BOX.shape), np.float32)
    wild = Gaussian(policy, 5.0, np.random.default_rng(0)).actor()(features, np.zeros(2000, bool))
    assert wild.min() == -1 and wild.max() == 1
    anywhere = noise.at_random(features, np.zeros(2000, bool))
    assert -1 <= anywhere.min() < -0.99 and 0.99 < anywhere.max() <= 1 and abs(anywhere.mean()) < 0.05


@pytest.mark.parametrize("popart", [False, True])
def test_normalised_returns_learn_large_rewards(popart):
    """Values near 1e4, far from what a network gives at first, are found with ordinary learning rates."""
    _, update = make(Config(normalize_returns=True, popart=popart, gamma=0.0, batch_size=64))
    rng = np.random.default_rng(5)
    for _ in range(20):
        data = batches(rng, count=50, size=64)
        rewards = 1e4 + 500 * data.actions[..., 0]
        stats = update(data._replace(rewards=rewards), 1e-4, 3e-3)
    assert stats["explained_variance"] > 0.9 and abs(stats["mean_q"] - 1e4) < 100
    np.testing.assert_allclose(update.figures["return_std"], 500 / np.sqrt(3), rtol=0.05)


def test_ornstein_uhlenbecks_deviation_and_restarts():
    policy = DeterministicPolicy(BOX, UNEVEN)
    noise = OrnsteinUhlenbeck(policy, 0.2, np.random.default_rng(0))
    never = np.zeros(2000, bool)
    for _ in range(3000):
        x = noise.draw(never)
    stationary = 0.2 * np.sqrt(0.01 / (1 - (1 - 0.15 * 0.01) ** 2))
    np.testing.assert_allclose(x.std(), stationary, rtol=0.05)
    np.testing.assert_allclose(stationary, 0.365, rtol=1e-2)
    firsts = never.copy()
    firsts[0] = True
    assert np.abs(noise.draw(firsts)[0]).max() < 0.1  # one step from 0: deviation 0.02


def test_noise_on_parameters_finds_the_gap_that_is_wanted():
    policy = DeterministicPolicy(BOX, UNEVEN, seed=1)
    policy.pi_head.w.assign(policy.pi_head.w * 100)
    noise = NoisyParameters(policy, 0.2, np.random.default_rng(0))
    features = np.random.default_rng(1).normal(size=(64, 3)).astype(np.float32)
    gaps = []
    for _ in range(200):
        noise.adapt(features, Comm())
        gaps.append(np.sqrt(np.square(noise.actor()(features, None) - policy.pi_function()(features)).mean()))
    assert 0.1 < np.mean(gaps[-100:]) < 0.3


def test_actions_are_scaled_to_uneven_bounds():
    policy = DeterministicPolicy(BOX, UNEVEN)
    np.testing.assert_allclose(policy.to_env(np.array([[-1.0, -1], [0, 0], [1, 1], [5, -7]])),
                               [[-1, 0], [1, 5], [3, 10], [3, 0]])
    assert UNEVEN.contains(policy.to_env(np.ones((1, 2)))[0])


def test_the_file_gives_the_policy_back(tmp_path):
    policy = DeterministicPolicy(BOX, UNEVEN, network_options={"sizes": "8,4"}, normalize_observations=True, seed=9)
    policy.normalize.obs.mean[:] = [1, 2, 3]
    policy.normalize.freeze()
    policy.save(str(tmp_path / "m"))
    loaded = load(str(tmp_path / "m"))
    obs = np.random.default_rng(0).normal(size=(20, 3))
    for mine, theirs in zip(policy.step(obs), loaded.step(obs), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert policy.step(obs)[3] is None


@pytest.mark.parametrize(("env", "options", "message"), [
    ("CartPole-v1", {}, "supported is Box"), ("Pendulum-v1", {"popart": True}, "needs normalize_returns"),
    ("Pendulum-v1", {"num_timesteps": 500}, "would train nothing"),
    ("Pendulum-v1", {"num_timesteps": 1050}, "a budget of 1000 steps"),
    ("Pendulum-v1", {"network": "lstm"}, "support"),
    ("Pendulum-v1", {"buffer_size": 50}, "buffer_size=50 must be at least 100"),
    ("Pendulum-v1", {"network": "cnn"}, "pictures")])
def test_what_cannot_be_meant_is_refused(env, options, message):
    with pytest.raises(UserError, match=message):
        ddpg.learn(env, options.pop("num_timesteps", 3000), **options)
