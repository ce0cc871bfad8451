"""Fisher products, the Fisher matrix and the natural step, in float64."""

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf

from baselines_lite.common.networks.flat import get_flat
from baselines_lite.common.optim.cg import conjugate_gradient
from baselines_lite.common.optim.natural_gradient import PolicyObjective
from baselines_lite.common.policies.actor_critic import ActorCritic
from baselines_lite.common.system.mpi import Comm

BOX = gym.spaces.Box(-1, 1, (3,))
SPACES = {"discrete": gym.spaces.Discrete(4), "box": gym.spaces.Box(-1, 1, (2,)),
          "multidiscrete": gym.spaces.MultiDiscrete([2, 3]), "multibinary": gym.spaces.MultiBinary(2)}
B = 40


def loaded(space, seed=0, **options):
    policy = ActorCritic(BOX, space, seed=seed, dtype=tf.float64, network_options={"num_hidden": 4})
    rng = np.random.default_rng(seed)
    for v in policy.pi_variables:
        v.assign_add(rng.normal(scale=0.3, size=v.shape))
    obs = rng.normal(size=(B, 3))
    acted = policy.compiled_actor()(obs, policy.pdtype.noise(rng, (B,)).astype(np.float64))
    objective = PolicyObjective(policy, Comm(), **options)
    logp = policy.logp(acted.heads, acted.actions)
    theta = objective.load({"obs": tf.constant(obs), "actions": tf.constant(acted.actions), "logp": tf.constant(logp),
                            "advs": tf.constant(rng.normal(size=B))})
    return policy, objective, theta


def hessian_of_kl(policy, objective):
    """The dense second derivative of the mean KL at theta_old, column by column."""
    (theta,), obs = policy.pi_variables, objective.batch["obs"]
    fixed = policy.copy()
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            kl = tf.reduce_mean(fixed.evaluate(obs)[0].kl(policy.evaluate(obs)[0]))
        g = inner.gradient(kl, theta)
    return outer.jacobian(g, theta).numpy()


@pytest.mark.parametrize("kind", SPACES)
def test_fisher_products_are_the_hessian_of_the_kl(kind):
    policy, objective, theta = loaded(SPACES[kind])
    hessian = hessian_of_kl(policy, objective)
    for v in np.random.default_rng(1).normal(size=(3, theta.size)):
        np.testing.assert_allclose(objective.fisher_product(v), hessian @ v, atol=1e-10)


def test_the_fisher_matrix_over_all_actions_is_the_hessian_of_the_kl():
    policy, objective, _ = loaded(SPACES["discrete"])
    np.testing.assert_allclose(objective.fisher_matrix(), hessian_of_kl(policy, objective), atol=1e-10)


def test_the_score_of_sampled_actions_has_that_matrix_in_expectation():
    """For a Gaussian, by Gauss-Hermite quadrature over actions: exact."""
    policy, objective, _ = loaded(SPACES["box"])
    points, w = np.polynomial.hermite_e.hermegauss(6)
    grid = np.stack(np.meshgrid(points, points), axis=-1).reshape(-1, 2)
    weights = (w[:, None] * w[None]).ravel() / w.sum() ** 2
    pd = policy.evaluate(objective.batch["obs"])[0]
    scores_at = tf.function(objective.scores)
    total = 0.0
    for z, weight in zip(grid, weights, strict=True):
        scores = scores_at(objective.batch["obs"], pd.mean + tf.exp(pd.logstd) * tf.constant(z)).numpy()
        total = total + weight * scores.T @ scores / B
    np.testing.assert_allclose(total, hessian_of_kl(policy, objective), atol=1e-10)


def test_the_matrix_is_the_same_in_chunks(monkeypatch):
    _, objective, _ = loaded(SPACES["box"])
    whole = objective.fisher_matrix()
    monkeypatch.setattr(objective, "CHUNK", 7)
    np.testing.assert_allclose(objective.fisher_matrix(), whole, atol=1e-12)


def test_gradient_and_point_by_differences():
    _, objective, theta = loaded(SPACES["box"], ent_coef=0.1)
    g, start = objective.gradient()
    at_start = objective.point(theta)
    assert at_start == pytest.approx(start) and at_start.kl == 0
    for v in np.random.default_rng(2).normal(size=(3, theta.size)):
        ahead, behind = objective.point(theta + 1e-5 * v), objective.point(theta - 1e-5 * v)
        assert (ahead.surrogate - behind.surrogate) / 2e-5 == pytest.approx(g @ v, rel=1e-6)
        # The KL is quadratic at the start, with half the Fisher matrix.
        near = objective.point(theta + 1e-3 * v).kl + objective.point(theta - 1e-3 * v).kl
        assert near / 2e-6 == pytest.approx(0.5 * v @ objective.fisher_product(v), rel=1e-4)


def test_the_gradient_at_the_old_parameters_is_the_policy_gradient():
    policy, objective, _ = loaded(SPACES["discrete"])
    g, _ = objective.gradient()
    with tf.GradientTape() as tape:
        pd, _ = policy.evaluate(objective.batch["obs"])
        mean = tf.reduce_mean(objective.batch["advs"] * pd.logp(objective.batch["actions"]))
    expected = np.concatenate([x.numpy().ravel() for x in tape.gradient(mean, policy.pi_variables)])
    np.testing.assert_allclose(g, expected, atol=1e-12)


def test_conjugate_gradient_solves_the_fisher_system_as_a_dense_solver():
    _, objective, theta = loaded(SPACES["discrete"])
    g, _ = objective.gradient()
    matrix = objective.fisher_matrix() + 0.1 * np.eye(theta.size)
    found = conjugate_gradient(lambda v: objective.fisher_product(v) + 0.1 * v, g, theta.size + 10, 1e-28)
    np.testing.assert_allclose(found.x, np.linalg.solve(matrix, g), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("num_env", [1, 5])
def test_every_fifth_sample_of_each_environment(num_env):
    _, objective, theta = loaded(SPACES["box"], fisher_every=5, num_env=num_env)
    _, fewer, _ = loaded(SPACES["box"])
    rows = [i for i in range(len(fewer.batch["obs"])) if (i // num_env + i % num_env) % 5 == 0]
    assert {i % num_env for i in rows} == set(range(num_env))
    fewer.load({name: tf.gather(array, rows) for name, array in fewer.batch.items()})
    v = np.ones(theta.size)
    np.testing.assert_allclose(objective.fisher_product(v), fewer.fisher_product(v), atol=1e-12)


def test_assign_is_where_theta_is():
    policy, objective, theta = loaded(SPACES["box"])
    objective.assign(theta + 1)
    np.testing.assert_allclose(get_flat(policy.pi_variables), theta + 1)
