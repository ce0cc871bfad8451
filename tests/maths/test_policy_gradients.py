"""The line from the policy gradient to PPO: each step against what the papers say of it, in float64."""

import functools

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf

from baselines_lite.common.networks.flat import flat_gradient, get_flat, set_flat
from baselines_lite.common.optim.minibatch import Minibatches
from baselines_lite.common.optim.mpi_adam import MpiAdam
from baselines_lite.common.optim.natural_gradient import PolicyObjective
from baselines_lite.common.policies.actor_critic import ActorCritic
from baselines_lite.common.sampling.returns import standardize
from baselines_lite.common.system.mpi import Comm
from baselines_lite.npg import npg
from baselines_lite.npg.config import Config as NpgConfig
from baselines_lite.ppo1 import ppo1
from baselines_lite.ppo1.config import Config as Ppo1Config
from baselines_lite.trpo_mpi import trpo_mpi
from baselines_lite.trpo_mpi.config import Config as TrpoConfig
from baselines_lite.vpg import vpg
from baselines_lite.vpg.config import Config as VpgConfig

BOX, DISCRETE = gym.spaces.Box(-1, 1, (3,)), gym.spaces.Discrete(4)
B = 64


def batch_of(policy, seed=0, advs=None):
    rng = np.random.default_rng(seed)
    obs = rng.normal(size=(B, 3))
    acted = policy.compiled_actor()(obs, policy.pdtype.noise(rng, (B,)).astype(np.float64))
    arrays = {"obs": obs, "actions": acted.actions, "values": acted.values,
              "logp": policy.logp(acted.heads, acted.actions),
              "advs": rng.normal(size=B) if advs is None else advs, "returns": rng.normal(size=B)}
    return {name: tf.constant(array) for name, array in arrays.items()}


def setting(space=DISCRETE, seed=0, hidden=5, **options):
    policy = ActorCritic(BOX, space, seed=seed, dtype=tf.float64, network_options={"num_hidden": hidden}, **options)
    rng = np.random.default_rng(seed)
    for v in policy.pi_variables:
        v.assign_add(rng.normal(scale=0.3, size=v.shape))
    return policy


@functools.cache  # compiling one takes seconds
def objective_of(policy):
    return PolicyObjective(policy, Comm())


def loaded(policy, batch):
    return objective_of(policy), objective_of(policy).load(batch)


# vpg

def test_the_score_of_a_linear_softmax_by_hand():
    """grad log pi(a|s) of logits W^T s + b is (one-hot(a) - pi) for b, its outer product with s for W."""
    policy = ActorCritic(BOX, DISCRETE, dtype=tf.float64, network_options={"num_layers": 0})
    policy.pi_head.w.assign(np.random.default_rng(0).normal(size=(3, 4)))
    batch = batch_of(policy)
    with tf.GradientTape() as tape:
        loss, _ = vpg.policy_loss(policy, VpgConfig(), batch)
    g = policy.parameters.split(tape.gradient(loss, policy.pi_variables), policy.pi_variables)
    to_w, to_b = g[policy.pi_head.w], g[policy.pi_head.b]
    logits = batch["obs"].numpy() @ policy.pi_head.w.numpy()
    pi = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    error = (np.eye(4)[batch["actions"]] - pi) * batch["advs"].numpy()[:, None]
    np.testing.assert_allclose(to_b, -error.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(to_w, -batch["obs"].numpy().T @ error / B, atol=1e-12)


@pytest.mark.parametrize("space", [gym.spaces.Discrete(4), gym.spaces.Box(-1, 1, (1,))])
def test_the_score_has_mean_zero(space):
    """E over a ~ pi of grad log pi(a|s) = 0: over all actions, or by quadrature."""
    policy = setting(space)
    obs = batch_of(policy)["obs"][:1]
    if isinstance(space, gym.spaces.Box):
        nodes, weights = np.polynomial.hermite_e.hermegauss(20)
        head = policy.pi_head(policy.pi_net(obs)).numpy()
        actions, weights = head + np.exp(policy.logstd) * nodes[:, None], weights / weights.sum()
    else:
        actions = np.arange(4)
        weights = tf.nn.softmax(policy.pi_head(policy.pi_net(obs)))[0].numpy()
    with tf.GradientTape() as tape:
        logp = policy.evaluate(tf.repeat(obs, len(actions), axis=0))[0].logp(tf.constant(actions))
        mean = tf.reduce_sum(logp * weights)
    g = flat_gradient(tape, mean, policy.pi_variables).numpy()
    np.testing.assert_allclose(g, 0, atol=1e-12)


def test_the_gradient_for_a_gaussian_is_the_slope_of_the_loss():
    policy = setting(gym.spaces.Box(-1, 1, (2,)))
    batch = batch_of(policy)
    with tf.GradientTape() as tape:
        loss, _ = vpg.policy_loss(policy, VpgConfig(ent_coef=0.3), batch)
    g = flat_gradient(tape, loss, policy.pi_variables).numpy()
    theta = get_flat(policy.pi_variables)
    for v in np.random.default_rng(1).normal(size=(3, theta.size)):
        ends = []
        for sign in (1, -1):
            set_flat(policy.pi_variables, theta + sign * 1e-5 * v)
            policy_loss, entropy = vpg.policy_loss(policy, VpgConfig(), batch)[1].numpy()
            ends.append(policy_loss - 0.3 * entropy)
        assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(g @ v, rel=1e-6)


def test_standardised_advantages():
    advs = 1e6 + np.random.default_rng(0).normal(size=(5, 7))
    found = standardize(advs, Comm())
    assert abs(found.mean()) < 1e-6 and found.std() == pytest.approx(1)
    np.testing.assert_array_equal(standardize(np.full((5, 7), 3.25), Comm()), 0)


# npg

@pytest.mark.parametrize("solver", ["cg", "explicit"])
def test_the_quadratic_form_of_a_natural_step_is_twice_delta(solver):
    policy = setting()
    objective, theta = loaded(policy, batch_of(policy))
    cfg, fisher = NpgConfig(damping=0.1, solver=solver, cg_iters=200), objective.fisher_matrix()
    figures = npg.natural_step(objective, theta, cfg, step_kl=1e-6)
    step = get_flat(policy.pi_variables) - theta
    assert 0.5 * step @ fisher @ step == pytest.approx(1e-6, rel=1e-8)
    assert figures["kl"] == pytest.approx(1e-6, rel=0.05) and figures["step_taken"] == 1


def steps_of(policy, advs, **options):
    objective, theta = loaded(policy, batch_of(policy, advs=advs))
    npg.natural_step(objective, theta, NpgConfig(**{"damping": 0.1, "solver": "explicit", **options}), step_kl=0.01)
    step = get_flat(policy.pi_variables) - theta
    objective.assign(theta)
    return step


def test_solvers_agree_and_the_scale_of_the_advantages_does_not_matter():
    policy, advs = setting(), np.random.default_rng(5).normal(size=B)
    one = steps_of(policy, advs)
    np.testing.assert_allclose(steps_of(policy, 1000 * advs), one, rtol=1e-9)
    np.testing.assert_allclose(steps_of(policy, advs, solver="cg", cg_iters=300), one, rtol=1e-3,
                               atol=1e-4 * np.abs(one).max())


def test_with_a_euclidean_metric_the_step_is_the_vanilla_policy_gradient(monkeypatch):
    policy = setting()
    objective, theta = loaded(policy, batch_of(policy))
    monkeypatch.setattr(objective, "fisher_product", lambda v: v)
    g, _ = objective.gradient()
    npg.natural_step(objective, theta, NpgConfig(damping=0.0), step_kl=0.01)
    step = get_flat(policy.pi_variables) - theta
    np.testing.assert_allclose(step, g * np.sqrt(0.02) / np.linalg.norm(g), rtol=1e-9)


def test_a_linear_reparametrisation_leaves_the_policy_that_a_step_reaches():
    """theta = M phi: the natural gradient of phi is M^-1 times that of theta, so the same functions come out."""
    policy = setting(hidden=2)
    objective, theta = loaded(policy, batch_of(policy))
    fisher, (g, _) = objective.fisher_matrix(), objective.gradient()
    ridge = 1e-6 * np.eye(theta.size)
    M = np.random.default_rng(3).normal(size=(theta.size, theta.size)) + 3 * np.eye(theta.size)
    step = npg.solve(fisher + ridge, g)[0]
    in_phi = npg.solve(M.T @ (fisher + ridge) @ M, M.T @ g)[0]
    np.testing.assert_allclose(M @ in_phi, step, rtol=1e-5, atol=1e-6 * np.abs(step).max())


@pytest.mark.parametrize("solver", ["cg", "explicit"])
def test_nothing_to_learn_from_means_no_step_and_numbers(solver):
    policy = setting()
    for advs in (np.zeros(B), np.full(B, np.nan)):
        objective, theta = loaded(policy, batch_of(policy, advs=advs))
        figures = npg.natural_step(objective, theta, NpgConfig(solver=solver), step_kl=0.01)
        assert figures["step_taken"] == 0 and figures["kl"] == 0
        np.testing.assert_array_equal(get_flat(policy.pi_variables), theta)


def test_a_singular_fisher_matrix_takes_no_step():
    x, _ = npg.solve(np.zeros((5, 5)), np.ones(5))
    np.testing.assert_array_equal(x, 0)


def test_a_matrix_that_is_singular_but_for_rounding_takes_no_step():
    """A softmax's Fisher matrix is singular: a constant added to all logits changes nothing."""
    policy = ActorCritic(gym.spaces.Box(-1, 1, (3,)), gym.spaces.Discrete(4), seed=0, network_options={"num_hidden": 4})
    rng = np.random.default_rng(0)
    obs, actions = rng.normal(size=(64, 3)).astype(np.float32), rng.integers(4, size=64)
    logp = policy.values_and_logp(obs, actions)[1]
    objective = PolicyObjective(policy, Comm())
    theta = objective.load({k: tf.constant(v) for k, v in dict(
        obs=obs, actions=actions, logp=logp, advs=rng.normal(size=64).astype(np.float32)).items()})
    figures = npg.natural_step(objective, theta, NpgConfig(solver="explicit", damping=0.0), step_kl=0.01)
    assert figures["step_taken"] == 0 and figures["kl"] == 0
    damped = npg.natural_step(objective, theta, NpgConfig(solver="explicit", damping=1e-3), step_kl=0.01)
    assert damped["step_taken"] == 1


# trpo_mpi

def test_the_measured_kl_never_exceeds_max_kl():
    policy = setting(gym.spaces.Box(-1, 1, (2,)))
    cfg, taken = TrpoConfig(max_kl=0.01, fisher_every=1, cg_damping=1e-3), 0
    for k in range(30):
        objective, theta = loaded(policy, batch_of(policy, seed=k))
        figures = trpo_mpi.trust_region_step(objective, theta, cfg)
        kl = objective.point(get_flat(policy.pi_variables)).kl
        assert kl <= cfg.max_kl and figures["kl"] == pytest.approx(kl)
        assert figures["improvement"] > 0 or figures["step_fraction"] == 0
        taken += figures["step_fraction"] > 0
    assert taken > 20


def test_where_no_step_is_acceptable_the_parameters_stay():
    policy = setting()
    for cfg, advs in ((TrpoConfig(accept_ratio=1e9), None), (TrpoConfig(), np.zeros(B)),
                      (TrpoConfig(), np.full(B, np.nan))):
        objective, theta = loaded(policy, batch_of(policy, advs=advs))
        figures = trpo_mpi.trust_region_step(objective, theta, cfg)
        assert figures["step_fraction"] == 0 and figures["kl"] == 0
        np.testing.assert_array_equal(get_flat(policy.pi_variables), theta)


def test_the_penalised_step_maximises_the_quadratic_model():
    """max over d of g d - c / 2 d F d is at F^-1 g / c; the larger the coefficient, the nearer the policy stays."""
    policy, kls = setting(), []
    objective, theta = loaded(policy, batch_of(policy))
    g, _ = objective.gradient()
    matrix = objective.fisher_matrix() + 0.1 * np.eye(theta.size)
    for penalty in (1.0, 10.0, 100.0):
        objective.assign(theta)
        cfg = TrpoConfig(penalty_coef=penalty, fisher_every=1, cg_iters=300, cg_damping=0.1, accept_ratio=0.0)
        figures = trpo_mpi.trust_region_step(objective, theta, cfg)
        step = get_flat(policy.pi_variables) - theta
        np.testing.assert_allclose(step, figures["step_fraction"] * np.linalg.solve(matrix, g) / penalty, rtol=1e-3,
                                   atol=1e-4 * np.abs(step).max())
        kls.append(figures["kl"])
    assert kls[0] > kls[1] > kls[2] > 0


# ppo1

def with_old(policy, batch):
    return batch | policy.distribution(batch)


@pytest.mark.parametrize("objective", ["clip", "kl_fixed", "kl_adaptive"])
@pytest.mark.parametrize("space", [DISCRETE, gym.spaces.Box(-1, 1, (2,))])
def test_at_the_old_parameters_each_objective_has_the_policy_gradient(objective, space):
    policy = setting(space)
    batch = with_old(policy, batch_of(policy))
    half = tf.constant(0.2, tf.float64)
    with tf.GradientTape() as tape:
        loss, stats = ppo1.loss_and_stats(policy, Ppo1Config(objective=objective, vf_coef=0.0), batch, half, 3 * half)
    with tf.GradientTape() as plain:
        expected, _ = vpg.policy_loss(policy, VpgConfig(), batch)
    np.testing.assert_allclose(flat_gradient(tape, loss, policy.pi_variables),
                               flat_gradient(plain, expected, policy.pi_variables), atol=1e-12)
    assert abs(stats[-1]) < 1e-12


def test_the_kl_terms_gradient_there_is_zero_and_its_hessian_beta_f():
    policy = setting(hidden=2)
    batch = with_old(policy, batch_of(policy, advs=np.zeros(B)))
    cfg, beta = Ppo1Config(objective="kl_fixed", vf_coef=0.0), tf.constant(1.7, tf.float64)
    theta = get_flat(policy.pi_variables)

    def gradient(at):
        set_flat(policy.pi_variables, at)
        with tf.GradientTape() as tape:
            loss, _ = ppo1.loss_and_stats(policy, cfg, batch, beta, beta)
        return flat_gradient(tape, loss, policy.pi_variables).numpy()

    np.testing.assert_allclose(gradient(theta), 0, atol=1e-12)
    set_flat(policy.pi_variables, theta)
    objective, _ = loaded(policy, batch)
    for v in np.random.default_rng(0).normal(size=(3, theta.size)):
        slope = (gradient(theta + 1e-5 * v) - gradient(theta - 1e-5 * v)) / 2e-5
        set_flat(policy.pi_variables, theta)
        np.testing.assert_allclose(slope, 1.7 * objective.fisher_product(v), atol=1e-7)


@pytest.mark.parametrize(("kl", "expected"), [
    (0.0, 0.5), (0.00999, 0.5), (0.01, 1.0), (0.015, 1.0), (0.0225, 1.0), (0.02251, 2.0), (1.0, 2.0)])
def test_the_adaptive_coefficient_at_its_boundaries(kl, expected):
    assert ppo1.adapted(1.0, kl, Ppo1Config(target_kl=0.015)) == expected


def test_the_adaptive_coefficient_has_bounds():
    cfg = Ppo1Config(target_kl=0.01, kl_coef=0.5)
    beta = 0.5
    for _ in range(200):
        beta = ppo1.adapted(beta, 1.0, cfg)
    assert beta == 512
    for _ in range(200):
        beta = ppo1.adapted(beta, 0.0, cfg)
    assert beta == 0.5 / 1024


def test_the_kl_of_an_update_is_that_of_the_policies_before_and_after():
    policy = setting(gym.spaces.Box(-1, 1, (2,)))
    batch = with_old(policy, batch_of(policy))
    objective, theta = loaded(policy, batch)
    assert policy.kl_since(batch) == pytest.approx(0, abs=1e-12)
    set_flat(policy.pi_variables, theta + 0.1)
    assert policy.kl_since(batch) == pytest.approx(objective.point(theta + 0.1).kl)


def test_one_adam_step_on_the_whole_batch_is_along_the_sign_of_the_policy_gradient():
    """The first step of Adam is lr g / (|g| + eps): vpg's update as it is run."""
    policy = setting()
    adam = MpiAdam(policy.pi_variables, Comm(), epsilon=1e-12)
    step = Minibatches(policy, adam, lambda batch, _: vpg.policy_loss(policy, VpgConfig(), batch),
                         ("loss", "entropy"))
    batch = batch_of(policy)
    with tf.GradientTape() as tape:
        loss, _ = vpg.policy_loss(policy, VpgConfig(), batch)
    g, theta = flat_gradient(tape, loss, policy.pi_variables).numpy(), get_flat(policy.pi_variables)
    step(batch, np.arange(B, dtype=np.int32)[None], 0.01)
    moved = np.abs(g) > 1e-9
    np.testing.assert_allclose((get_flat(policy.pi_variables) - theta)[moved], -0.01 * np.sign(g[moved]), rtol=1e-3)
