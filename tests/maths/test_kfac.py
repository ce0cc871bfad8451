"""KFAC against dense Fisher matrices, loops, and least squares; in float64."""

import threading

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf

from baselines_lite.acktr import acktr
from baselines_lite.acktr.config import Config
from baselines_lite.common.networks.builders import NETWORKS, register
from baselines_lite.common.networks.flat import flat_gradient, flatten, get_flat, set_flat
from baselines_lite.common.networks.layers import Conv, Dense
from baselines_lite.common.optim import kronecker, losses
from baselines_lite.common.optim.kfac import Kfac, kl_clip, layers_of
from baselines_lite.common.optim.kronecker import (
    Factors,
    Inverses,
    damped_inverses,
    factors_of,
    inputs_of,
    inverse,
    owners,
    to_matrix,
)
from baselines_lite.common.policies.actor_critic import ActorCritic
from baselines_lite.common.system.errors import UserError
from baselines_lite.common.system.mpi import Comm
from tests import HANG

RNG = np.random.default_rng(0)
VECTOR, PICTURE = gym.spaces.Box(-1, 1, (3,)), gym.spaces.Box(0, 255, (10, 9, 2), np.uint8)


def dense(n_in=3, n_out=2):
    return Dense(n_in, n_out, rng=np.random.default_rng(1), dtype=tf.float64)


def conv(kernel=3, stride=2, n_in=2, n_out=3, padding="VALID", scale=1.0):
    return Conv(n_in, n_out, kernel, stride, rng=np.random.default_rng(1), padding=padding, scale=scale,
                         dtype=tf.float64)


def test_for_a_batch_of_one_the_kronecker_product_is_the_outer_product_of_the_gradient():
    layer, x, g = dense(), RNG.normal(size=(1, 3)), RNG.normal(size=(1, 2))
    A, G = (f.numpy() for f in factors_of(layer, tf.constant(x), tf.constant(g)))
    gradient = np.append(x[0], 1.0)[:, None] * g  # of V [n, m]
    np.testing.assert_allclose(np.kron(A, G), np.outer(gradient, gradient), atol=1e-12)


def test_factors_are_means_over_examples():
    layer, x, g = dense(), RNG.normal(size=(50, 3)), RNG.normal(size=(50, 2))
    A, G = factors_of(layer, tf.constant(x), tf.constant(g))
    a = np.append(x, np.ones((50, 1)), axis=1)
    np.testing.assert_allclose(A, np.mean([np.outer(r, r) for r in a], axis=0), atol=1e-12)
    np.testing.assert_allclose(G, np.mean([np.outer(r, r) for r in g], axis=0), atol=1e-12)


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(8, 4, "VALID"), (3, 2, "VALID"), (3, 1, "SAME")])
def test_convolution_factors_against_loops(kernel, stride, padding):
    layer = conv(kernel, stride, padding=padding, scale=0.5)
    x = RNG.normal(size=(2, 16, 12, 2))
    y = layer(tf.constant(x))
    g = RNG.normal(size=y.shape)
    A, G = factors_of(layer, tf.constant(x), tf.constant(g))
    rows, columns = y.shape[1:3]
    if padding == "SAME":
        x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    total_a, total_g = 0.0, 0.0
    for b in range(2):
        for r in range(rows):
            for c in range(columns):
                patch = x[b, r * stride : r * stride + kernel, c * stride : c * stride + kernel].ravel() * 0.5
                a = np.append(patch, 1.0)
                total_a, total_g = total_a + np.outer(a, a) / 2, total_g + np.outer(g[b, r, c], g[b, r, c])
                V = to_matrix(layer.w, layer.b).numpy()
                np.testing.assert_allclose(a @ V, y[b, r, c], atol=1e-10)  # the patch is what multiplies V
    np.testing.assert_allclose(A, total_a, atol=1e-10)
    np.testing.assert_allclose(G, total_g / (2 * rows * columns), atol=1e-12)


def test_a_convolution_with_one_output_is_a_dense_layer():
    layer, plain = conv(5, 1, n_in=2, n_out=3), dense(50, 3)
    plain.w.assign(tf.reshape(layer.w, [50, 3]))
    x, g = RNG.normal(size=(7, 5, 5, 2)), RNG.normal(size=(7, 3))
    np.testing.assert_allclose(layer(tf.constant(x))[:, 0, 0], plain(tf.constant(x.reshape(7, 50))), atol=1e-12)
    for mine, theirs in zip(factors_of(layer, tf.constant(x), tf.constant(g[:, None, None])),
                            factors_of(plain, tf.constant(x.reshape(7, 50)), tf.constant(g)), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-12)


def test_chosen_positions_estimate_all():
    layer = conv(3, 1)
    x = np.ones((4, 10, 9, 2))  # the same patch everywhere: a subset is exact
    g = np.tile(RNG.normal(size=(4, 1, 1, 3)), (1, 8, 7, 1))
    every = factors_of(layer, tf.constant(x), tf.constant(g))
    some = factors_of(layer, tf.constant(x), tf.constant(g), tf.constant([0, 17, 55]))
    for mine, theirs in zip(some, every, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-12)


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, "VALID"), (4, 4, "VALID"), (3, 2, "SAME"),
                                                           (4, 2, "SAME")])
def test_chosen_patches_are_those_of_all(kernel, stride, padding):
    layer = Conv(2, 3, kernel, stride, rng=RNG, padding=padding, scale=0.5, dtype=tf.float64)
    x = tf.constant(RNG.normal(size=(4, 11, 9, 2)))
    every = inputs_of(layer, x)
    chosen = [0, 3, every.shape[1] - 1]
    some = inputs_of(layer, x, tf.constant(chosen))
    np.testing.assert_allclose(some, tf.gather(every, chosen, axis=1), atol=1e-12)


def spd(n):
    a = RNG.normal(size=(n, n))
    return a @ a.T / n


def test_preconditioning_is_the_dense_damped_solve():
    factors = Factors(spd(4), spd(3))
    damping, gradient = 0.05, RNG.normal(size=(4, 3))
    A, G = damped_inverses(factors, damping)
    pi = np.sqrt((np.trace(factors.A) / 4) / (np.trace(factors.G) / 3))
    dense_fisher = np.kron(factors.A + pi * np.sqrt(damping) * np.eye(4), factors.G + np.sqrt(damping) / pi * np.eye(3))
    np.testing.assert_allclose((A @ gradient @ G).ravel(), np.linalg.solve(dense_fisher, gradient.ravel()), rtol=1e-9)


def test_damping_does_not_care_how_a_scale_is_split_between_the_factors():
    A, G = spd(4), spd(3)
    one, other = damped_inverses(Factors(A, G), 0.1), damped_inverses(Factors(100 * A, G / 100), 0.1)
    np.testing.assert_allclose(np.kron(*one), np.kron(*other), rtol=1e-9)
    zero = damped_inverses(Factors(np.zeros((2, 2)), G), 0.1)
    assert all(np.isfinite(f).all() for f in zero)


@pytest.mark.parametrize(("inner", "active"), [(5.0, True), (1e-4, False), (0.0, False), (-3.0, False)])
def test_the_kl_clip(inner, active):
    lr, clip = 0.25, 0.001
    nu = float(kl_clip(tf.constant(inner, tf.float64), tf.constant(lr, tf.float64), clip))
    if active:
        assert lr**2 * nu**2 * inner == pytest.approx(clip)
    else:
        assert nu == 1.0


def batch_for(policy, count=64, seed=0, scales=1.0):
    rng = np.random.default_rng(seed)
    space = policy.observation_space
    obs = (rng.integers(0, 256, (count, *space.shape), dtype=np.uint8) if space.dtype == np.uint8
           else rng.normal(size=(count, *space.shape)) * scales)
    acted = policy.compiled_actor()(obs, policy.pdtype.noise(rng, (count,)).astype(np.float64))
    arrays = {"obs": obs, "actions": acted.actions, "advs": rng.normal(size=count), "returns": rng.normal(size=count)}
    return {name: tf.constant(array) for name, array in arrays.items()}


def made(space, action_space, network, options, seed=0, value_network="shared", **kfac_options):
    policy = ActorCritic(space, action_space, network=network, network_options=options, value_network=value_network,
                         dtype=tf.float64, seed=seed)
    rng = np.random.default_rng(seed)
    for v in policy.trainable_variables:
        v.assign_add(rng.normal(scale=0.1, size=v.shape))
    cfg = Config()
    optimizer = Kfac(policy, Comm(), lambda b: losses.actor_critic_loss(policy, b, cfg.ent_coef, cfg.vf_coef),
                     lambda b: acktr.log_likelihood(policy, cfg, b), acktr.STATS,
                     **{"cold_iter": 0, "momentum": 0.0, **kfac_options})
    return policy, optimizer


SMALL = ("cnn", {"convs": "3@4/2", "num_hidden": 4})


def test_g_of_the_heads_in_expectation_over_actions_is_their_exact_fisher_matrix():
    """For logits: mean over s of diag(p) - p p^T; for the value: 1."""
    policy, optimizer = made(VECTOR, gym.spaces.Discrete(4), "mlp", {"num_hidden": 3})
    batch = batch_for(policy, 30)
    pd, _ = policy.evaluate(batch["obs"])
    p = tf.exp(pd.log_probs).numpy()
    index = next(i for i, layer in enumerate(optimizer.layers) if layer is policy.pi_head)
    value = next(i for i, layer in enumerate(optimizer.layers) if layer is policy.vf_head)
    total = 0.0
    for action in range(4):
        for n in range(30):  # one example at a time, so that it can be weighted by its probability
            one = {k: v[n : n + 1] for k, v in batch.items()} | {"actions": tf.constant([action])}
            optimizer.accumulated = 0
            optimizer.accumulate(one)
            total = total + p[n, action] * optimizer.factors[index].G / 30
            np.testing.assert_allclose(optimizer.factors[value].G, 1.0, atol=1e-12)
    expected = np.mean([np.diag(row) - np.outer(row, row) for row in p], axis=0)
    np.testing.assert_allclose(total, expected, atol=1e-12)


class EveryOutcome:
    """Stands for the optimizer's generator: the value's draws are those that were given."""

    def __init__(self, noise):
        self.noise = noise

    def choice(self, _, size):
        return self.noise

    def random(self, shape):
        return np.zeros(shape)


def by_parameter(optimizer, g):
    """A gradient by the optimizer's variables as that by each of its parameters."""
    parts = optimizer.policy.parameters.split(g, optimizer.variables)
    return [parts[p] for p in optimizer.parameters]


@pytest.mark.parametrize("kfac_clip", [1e-4, 1e9])
def test_a_whole_network_against_the_blocks_of_its_exact_fisher_matrix(kfac_clip):
    """On one picture of a kernel's size A (x) G is exact: the step is that of the dense damped blocks, clipped.

    The policy's outcomes mean +- deviation and the value's +- 1, each once, have the moments of normal draws.
    """
    policy, optimizer = made(gym.spaces.Box(0, 255, (4, 4, 2), np.uint8), gym.spaces.Box(-1, 1, (2,)), *SMALL,
                             damping=1e-2, kfac_clip=kfac_clip, inverse_every=1)
    for layer in optimizer.layers:
        layer.b.assign(tf.ones_like(layer.b))  # no unit is dead
    rng = np.random.default_rng(1)
    picture = rng.integers(0, 256, (1, 4, 4, 2), dtype=np.uint8)
    signs = np.stack(np.meshgrid([-1.0, 1.0], [-1.0, 1.0], [-1.0, 1.0]), axis=-1).reshape(8, 3)
    mean = policy.evaluate(tf.constant(picture))[0].mean
    sd = np.exp(policy.logstd.numpy())
    optimizer.rng = EveryOutcome(signs[:, 2])
    batch = {"obs": tf.repeat(tf.constant(picture), 8, axis=0),
             "actions": tf.constant(mean.numpy() + sd * signs[:, :2]),
             "advs": tf.constant(rng.normal(size=8)), "returns": tf.constant(rng.normal(size=8))}
    with tf.GradientTape() as tape:
        loss, _ = losses.actor_critic_loss(policy, batch, 0.01, 0.5)
    g = [x.numpy() for x in by_parameter(optimizer, tape.gradient(loss, optimizer.variables))]
    with tf.GradientTape() as tape:
        pd, value = policy.evaluate(tf.constant(picture))
        outputs = tf.concat([pd.mean[0], value], axis=0)
    J = tape.jacobian(outputs, optimizer.variables, unconnected_gradients="zero")
    J = zip(*(by_parameter(optimizer, [x[i] for x in J]) for i in range(3)), strict=True)
    J = [np.stack(rows).reshape(3, -1) for rows in J]
    F_out = np.diag([*1 / sd**2, 1.0])  # of mean and value: those of two normal distributions

    before = [p.numpy() for p in optimizer.parameters]
    figures = optimizer.update(batch, 0.5)
    moved = [p.numpy() - old for p, old in zip(optimizer.parameters, before, strict=True)]

    expected, damping = [], 1e-2
    for i in range(len(optimizer.layers)):
        w, b = J[2 * i], J[2 * i + 1]
        m = b.shape[1]
        n = w.shape[1] // m + 1
        JV = np.concatenate([w, b], axis=1)
        fisher, (A, G) = JV.T @ F_out @ JV, optimizer.factors[i]
        assert np.trace(G) > 0
        np.testing.assert_allclose(np.kron(A, G), fisher, atol=1e-10)
        pi = np.sqrt((np.trace(A) / n) / (np.trace(G) / m))
        damped = np.kron(A + pi * np.sqrt(damping) * np.eye(n), G + np.sqrt(damping) / pi * np.eye(m))
        D = np.linalg.solve(damped, np.append(g[2 * i].ravel(), g[2 * i + 1]))
        expected += [D[:-m].reshape(g[2 * i].shape), D[-m:]]
    old = policy.pdtype.pd(mean, tf.constant(before[-1]))
    logstd = tf.Variable(before[-1])
    with tf.GradientTape() as outer:  # the log standard deviation's is the Hessian of the KL
        with tf.GradientTape() as inner:
            kl = old.kl(policy.pdtype.pd(mean, logstd))
        slope = inner.gradient(kl, logstd)
    fisher = outer.jacobian(slope, logstd).numpy()
    expected.append(np.linalg.solve(fisher + damping * np.eye(2), g[-1]))
    q = 0.5**2 * sum((x * y).sum() for x, y in zip(g, expected, strict=True))
    nu = min(1.0, np.sqrt(kfac_clip / q))
    assert figures["kfac_nu"] == pytest.approx(nu) and (nu < 1) == (kfac_clip < 1)
    assert figures["kfac_kl"] == pytest.approx(0.5 * nu**2 * q)
    for mine, D in zip(moved, expected, strict=True):
        np.testing.assert_allclose(mine, -0.5 * nu * D, rtol=1e-6, atol=1e-9)


def test_networks_of_their_own_are_clipped_by_themselves():
    for value_network, count in (("copy", 2), ("shared", 1)):
        policy, optimizer = made(VECTOR, gym.spaces.Box(-1, 1, (2,)), "mlp", {"num_hidden": 3}, kfac_clip=1e-4,
                                 value_network=value_network)
        batch, lr = batch_for(policy, 16), 0.5
        with tf.GradientTape() as tape:
            loss, _ = losses.actor_critic_loss(policy, batch, 0.01, 0.5)
        g = by_parameter(optimizer, tape.gradient(loss, optimizer.variables))
        before = [p.numpy() for p in optimizer.parameters]
        figures = optimizer.update(batch, lr)
        D = optimizer._preconditioned(g, optimizer.inverter.inverses)
        own = [any(p.variable is v for v in policy.pi_variables) or count == 1 for p in optimizer.parameters]
        for mine in {True, count == 1}:
            q = lr**2 * sum(float(tf.reduce_sum(x * y)) for x, y, o in zip(g, D, own, strict=True) if o == mine)
            nu = np.sqrt(1e-4 / q)
            assert nu < 1 and (figures["kfac_nu"] == pytest.approx(nu)) == mine
            for p, old, d, o in zip(optimizer.parameters, before, D, own, strict=True):
                if o == mine:
                    np.testing.assert_allclose(p - old, -lr * nu * d, rtol=1e-6, atol=1e-12)


def test_linear_gaussian_regression_takes_one_step_to_least_squares():
    """With G = 1 and no damping, lr 1 is Newton's step on mean (V - R)^2 / 2."""
    policy = ActorCritic(VECTOR, gym.spaces.Discrete(2), network_options={"num_layers": 0}, dtype=tf.float64,
                         value_network="copy")
    batch = batch_for(policy, 40)
    cfg = Config(vf_coef=0.5, ent_coef=0.0)
    optimizer = Kfac(policy, Comm(), lambda b: losses.actor_critic_loss(policy, b, cfg.ent_coef, cfg.vf_coef),
                     lambda b: acktr.log_likelihood(policy, cfg, b), acktr.STATS, cold_iter=0, momentum=0.0,
                     damping=1e-14, kfac_clip=1e9)
    optimizer.update(batch | {"advs": tf.zeros(40, tf.float64)}, 1.0)
    x = np.append(batch["obs"], np.ones((40, 1)), axis=1)
    expected = np.linalg.lstsq(x, batch["returns"].numpy(), rcond=None)[0]
    np.testing.assert_allclose(np.append(policy.vf_head.w, policy.vf_head.b), expected, atol=1e-5)


def run(updates=6, seed=5, **options):
    policy, optimizer = made(PICTURE, gym.spaces.Discrete(3), *SMALL, inverse_every=2, **options)
    figures = [optimizer.update(batch_for(policy, 16, seed=seed + k), 0.1) for k in range(updates)]
    return policy, optimizer, figures


def test_two_runs_with_one_seed_agree_bit_for_bit():
    one, other = (get_flat(run()[0].trainable_variables) for _ in range(2))
    np.testing.assert_array_equal(one, other)


def test_asynchronous_inverses_are_those_of_the_factors_that_were_handed_over(monkeypatch):
    policy, optimizer = made(PICTURE, gym.spaces.Discrete(3), *SMALL, asynchronous=True)
    released = threading.Event()
    invert = damped_inverses
    monkeypatch.setattr(kronecker, "damped_inverses", lambda *given: released.wait(HANG) and invert(*given))
    optimizer.accumulate(batch_for(policy, 16))
    handed_over = [Factors(*map(np.array, pair)) for pair in optimizer.factors]
    optimizer.inverter.refresh(optimizer.factors)
    optimizer.accumulate(batch_for(policy, 16, seed=1))  # half of the next update, so to speak
    for _ in range(optimizer.inverter.delay - 1):  # not as soon as they are there: a run is to repeat itself
        optimizer.inverter.poll()
        optimizer.inverter.refresh(optimizer.factors)  # too early for another
        assert optimizer.inverter.inverses is None
        released.set()
    assert optimizer.inverter.delay == 5
    optimizer.inverter.poll()
    for mine, factors, present in zip(optimizer.inverter.inverses, handed_over, optimizer.factors, strict=True):
        assert not np.array_equal(factors.A, present.A)
        for a, b in zip(mine, invert(factors, 0.01), strict=True):
            np.testing.assert_array_equal(a, b)


def test_asynchronous_and_synchronous_updates_agree_once_inverses_are_current():
    (policy, late), (_, prompt) = (made(PICTURE, gym.spaces.Discrete(3), *SMALL, asynchronous=asynchronous,
                                        stats_every=1000, momentum=0.9) for asynchronous in (True, False))
    late.inverter.delay = 1
    batches = [batch_for(policy, 16, seed=k) for k in range(4)]
    start = get_flat(late.variables)
    assert late.update(batches[0], 0.1)["kfac_kl"] == 0.0  # no inverses yet: a plain step
    set_flat(late.variables, start)
    prompt.accumulate(batches[0])
    for batch in batches[1:]:
        mine, theirs = late.update(batch, 0.1), prompt.update(batch, 0.1)
        assert mine == theirs and mine["kfac_kl"] > 0
    np.testing.assert_array_equal(get_flat(late.variables), get_flat(prompt.variables))


def test_an_error_in_the_thread_is_raised(monkeypatch):
    policy, optimizer = made(VECTOR, gym.spaces.Discrete(3), "mlp", {"num_hidden": 3}, asynchronous=True)
    monkeypatch.setattr(kronecker, "damped_inverses", lambda *_: 1 / 0)
    optimizer.inverter.delay = 1
    optimizer.update(batch_for(policy, 16), 0.1)
    with pytest.raises(ZeroDivisionError):
        optimizer.update(batch_for(policy, 16), 0.1)


def test_statistics_and_inverses_come_as_often_as_asked():
    policy, optimizer = made(VECTOR, gym.spaces.Discrete(3), "mlp", {"num_hidden": 3}, cold_iter=3, stats_every=2,
                             inverse_every=4)
    counts, inverses = [], []
    for k in range(9):
        optimizer.update(batch_for(policy, 16, seed=k), 0.1)
        counts.append(optimizer.accumulated)
        inverses.append(optimizer.inverter.inverses)
    assert counts == [1, 2, 2, 3, 3, 4, 4, 5, 5]  # the first, then each second
    assert inverses[:3] == [None] * 3  # cold
    assert [inverses[k] is not inverses[k - 1] for k in range(3, 9)] == [True, False, False, False, True, False]


def test_the_momentum_of_plain_steps_is_not_carried_into_natural_ones():
    policy, optimizer = made(VECTOR, gym.spaces.Discrete(3), "mlp", {"num_hidden": 3}, cold_iter=3, momentum=0.9,
                             kfac_clip=1e-3)
    for k in range(3):
        optimizer.update(batch_for(policy, 16, seed=k), 0.1)
    velocity = 0.0
    for k in range(3, 5):  # the first natural step has none, the second the first's
        batch, before = batch_for(policy, 16, seed=k), flatten(optimizer.parameters)
        with tf.GradientTape() as tape:
            loss, _ = losses.actor_critic_loss(policy, batch, 0.01, 0.5)
        g = by_parameter(optimizer, tape.gradient(loss, optimizer.variables))
        figures = optimizer.update(batch, 0.1)
        velocity = 0.9 * velocity + figures["kfac_nu"] * flatten(
            optimizer._preconditioned(g, optimizer.inverter.inverses))
        np.testing.assert_allclose(flatten(optimizer.parameters) - before, -0.1 * 0.1 * velocity, rtol=1e-6, atol=1e-12)


def test_each_layer_is_inverted_by_the_rank_with_the_least_to_do():
    sizes = [(n, 1) for n in (10, 2, 9, 3, 5)]
    assert owners(sizes, 2) == [0, 1, 1, 1, 1]
    assert owners(sizes, 1) == [0] * 5


def test_the_inverse_of_symmetric_matrices():
    for dtype, tolerance in ((np.float64, 1e-10), (np.float32, 1e-4)):
        matrix = (spd(40) + np.eye(40)).astype(dtype)
        found = inverse(matrix.copy())
        np.testing.assert_allclose(found @ matrix, np.eye(40), atol=tolerance)
        np.testing.assert_array_equal(found, found.T)
    assert np.isnan(inverse(-np.eye(3))).all()


def test_inverses_that_cannot_be_computed_leave_the_last_ones_in_use():
    policy, optimizer = made(VECTOR, gym.spaces.Discrete(3), "mlp", {"num_hidden": 3}, inverse_every=1)
    optimizer.update(batch_for(policy, 16), 0.1)
    inverses, before = optimizer.inverter.inverses, get_flat(optimizer.variables)
    optimizer.factors[0].A.assign_sub(10 * np.eye(4))  # as rounding might, in small
    with pytest.warns(UserWarning, match="kfac_skipped counts them"):
        assert optimizer.update(batch_for(policy, 16, seed=1), 0.1)["kfac_skipped"] == 1
    assert optimizer.inverter.inverses is inverses
    assert np.isfinite(get_flat(optimizer.variables)).all() and (get_flat(optimizer.variables) != before).any()


@pytest.mark.filterwarnings("ignore:KFAC left out")
def test_a_step_against_the_gradient_is_not_taken():
    policy, optimizer = made(VECTOR, gym.spaces.Discrete(3), "mlp", {"num_hidden": 3}, inverse_every=100)
    optimizer.update(batch_for(policy, 16), 0.1)
    optimizer.inverter.inverses = [Inverses(-A, G) for A, G in optimizer.inverter.inverses]  # as rounding might
    before = get_flat(optimizer.variables)
    assert optimizer.update(batch_for(policy, 16, seed=1), 0.1)["kfac_skipped"] == 1
    np.testing.assert_array_equal(get_flat(optimizer.variables), before)


def test_running_factors_begin_as_a_plain_mean_and_go_on_as_a_decaying_one():
    policy, optimizer = made(VECTOR, gym.spaces.Discrete(3), "mlp", {"num_hidden": 3}, stats_decay=0.7)
    batches = [batch_for(policy, 16, seed=k) for k in range(5)]
    single = []
    for batch in batches:
        optimizer.accumulated = 0
        optimizer.accumulate(batch)
        single.append(optimizer.factors[0].A.numpy())
    optimizer.accumulated = 0
    for batch in batches[:3]:
        optimizer.accumulate(batch)
    np.testing.assert_allclose(optimizer.factors[0].A, np.mean(single[:3], axis=0), atol=1e-12)
    for batch in batches[3:]:
        optimizer.accumulate(batch)
    expected = 0.7 * (0.7 * np.mean(single[:3], axis=0) + 0.3 * single[3]) + 0.3 * single[4]
    np.testing.assert_allclose(optimizer.factors[0].A, expected, atol=1e-12)


def test_statistics_of_some_examples_are_those_of_a_part_of_the_batch():
    policy, optimizer = made(VECTOR, gym.spaces.Discrete(3), "mlp", {"num_hidden": 3}, examples=6)
    batch = batch_for(policy, 16)
    rows = np.random.default_rng(8).permutation(16)[:6]
    optimizer.rng = np.random.default_rng(8)
    optimizer.accumulate(batch)
    x = np.append(batch["obs"].numpy()[rows], np.ones((6, 1)), axis=1)
    np.testing.assert_allclose(optimizer.factors[optimizer.layers.index(policy.pi_net.layers[0])].A, x.T @ x / 6)


def test_the_kl_of_steps_stays_within_the_clip_and_the_loss_falls_faster_than_along_the_gradient():
    policy, optimizer = made(VECTOR, gym.spaces.Discrete(3), "mlp", {"num_hidden": 6}, kfac_clip=0.01, damping=1e-3)
    scales = [0.1, 1.0, 10.0]  # badly scaled inputs: what a natural gradient is for
    policy.pi_net.layers[0].w.assign(policy.pi_net.layers[0].w / np.array(scales)[:, None])
    batch = batch_for(policy, 256, scales=scales)
    start = get_flat(optimizer.variables)
    figures = optimizer.update(batch, 1.0)
    assert figures["kfac_nu"] < 1 and figures["kfac_kl"] == pytest.approx(0.005)  # half of the clip

    def loss_and_kl(theta, old=None):
        set_flat(optimizer.variables, theta)
        pd, values = policy.evaluate(batch["obs"])
        loss = losses.actor_critic_loss(policy, batch, 0.01, 0.5)[0].numpy()
        if old is None:
            return loss, (pd, values)
        kl = tf.reduce_mean(old[0].kl(pd)) + 0.5 * tf.reduce_mean(tf.square(values - old[1]))
        return loss, kl.numpy()

    natural = get_flat(optimizer.variables) - start
    before, old = loss_and_kl(start)
    after, kl = loss_and_kl(start + natural, old)
    assert 0 < kl < 0.02  # what kfac_kl estimates
    with tf.GradientTape() as tape:
        loss_and_kl(start)
        loss = losses.actor_critic_loss(policy, batch, 0.01, 0.5)[0]
    g = flat_gradient(tape, loss, optimizer.variables).numpy()
    low, high = 0.0, 10.0
    for _ in range(50):  # the plain step of the same KL
        middle = (low + high) / 2
        low, high = (middle, high) if loss_and_kl(start - middle * g, old)[1] < kl else (low, middle)
    plain, plain_kl = loss_and_kl(start - low * g, old)
    assert plain_kl == pytest.approx(kl, rel=1e-3)
    assert before - after > 1.1 * (before - plain) > 0


def test_what_is_not_finite_is_skipped_and_counted_and_told_of_once():
    policy, optimizer, _ = run(updates=3)
    theta = get_flat(policy.trainable_variables)
    batch = batch_for(policy, 16) | {"advs": tf.fill([16], tf.constant(np.nan, tf.float64))}
    with pytest.warns(UserWarning, match="in update 4; kfac_skipped counts them"):
        assert optimizer.update(batch, 0.1)["kfac_skipped"] == 1
    np.testing.assert_array_equal(get_flat(policy.trainable_variables), theta)
    assert optimizer.update(batch_for(policy, 16), 0.1)["kfac_skipped"] == 1
    assert np.isfinite(get_flat(policy.trainable_variables)).all()


def test_statistics_that_are_not_finite_are_left_out():
    policy, optimizer = made(VECTOR, gym.spaces.Discrete(3), "mlp", {"num_hidden": 3})
    unit, likelihood = tf.Variable(1.0, dtype=tf.float64, trainable=False), optimizer._log_likelihood
    optimizer._log_likelihood = lambda batch: unit * likelihood(batch)
    optimizer.update(batch_for(policy, 16), 0.1)
    factors = [f.numpy() for pair in optimizer.factors for f in pair]
    unit.assign(np.nan)
    with pytest.warns(UserWarning, match="not finite"):
        assert optimizer.update(batch_for(policy, 16, seed=1), 0.1)["kfac_skipped"] == 1
    for old, new in zip(factors, (f for pair in optimizer.factors for f in pair), strict=True):
        np.testing.assert_array_equal(old, new)


def test_cold_updates_are_clipped_momentum_steps():
    policy, optimizer = made(VECTOR, gym.spaces.Discrete(3), "mlp", {"num_hidden": 3}, cold_iter=2, momentum=0.9,
                             max_grad_norm=0.01)
    theta, velocity = get_flat(optimizer.variables), 0.0
    for k in range(2):
        batch = batch_for(policy, 16, seed=k)
        with tf.GradientTape() as tape:
            loss, _ = losses.actor_critic_loss(policy, batch, 0.01, 0.5)
        g = flat_gradient(tape, loss, optimizer.variables).numpy()
        velocity = 0.9 * velocity + g * min(1, 0.01 / np.linalg.norm(g))
        theta = theta - 0.5 * 0.1 * velocity
        optimizer.update(batch, 0.5)
        np.testing.assert_allclose(get_flat(optimizer.variables), theta, rtol=1e-9)


@pytest.mark.parametrize(("network", "options", "words"), [("lstm", {}, "lstm"), ("mlp", {"layer_norm": True}, "rs/1")])
def test_layers_that_kfac_cannot_treat_are_refused(network, options, words):
    with pytest.raises(UserError, match=f"does not support.*{words}"):
        made(VECTOR, gym.spaces.Discrete(3), network, options)


def refused_at_its_first_statistics(module, words):
    """A network of one's own that is `module`, of a dtype."""
    register("own")(lambda size, *, rng, dtype, name: module(dtype))
    try:
        policy, optimizer = made(VECTOR, gym.spaces.Discrete(3), "own", {})
        with pytest.raises(UserError, match=words):
            optimizer.accumulate(batch_for(policy, 8))
    finally:
        del NETWORKS["own"]


def test_a_layer_that_is_used_twice_is_refused():
    class Twice(tf.Module):
        out_size = 3

        def __init__(self, dtype):
            super().__init__()
            self.layer = Dense(3, 3, rng=RNG, dtype=dtype)

        def __call__(self, x):
            return self.layer(self.layer(x))

    refused_at_its_first_statistics(Twice, "used twice or never")


def test_layers_that_share_a_parameter_are_refused():
    policy = ActorCritic(VECTOR, gym.spaces.Discrete(3), network_options={"num_hidden": 3, "num_layers": 2},
                         dtype=tf.float64)
    first, second = (m for m in policy.pi_net.submodules if isinstance(m, Dense))
    second.b = first.b
    with pytest.raises(UserError, match="share a parameter"):
        layers_of(policy)


def test_a_dense_layer_on_several_vectors_per_example_is_refused():
    class PerPart(tf.Module):
        out_size = 6

        def __init__(self, dtype):
            super().__init__()
            self.layer = Dense(1, 2, rng=RNG, dtype=dtype)

        def __call__(self, x):
            return tf.reshape(self.layer(x[:, :, None]), [-1, 6])

    refused_at_its_first_statistics(PerPart, "more than one vector per example")


def test_positions_are_drawn_from_the_whole_picture():
    """With few of a convolution's positions at a time, statistics agree with those of all, in the long run."""
    (policy, some), (_, every) = (made(PICTURE, gym.spaces.Discrete(3), "cnn", {"convs": "3@3/1", "num_hidden": 4},
                                       stats_decay=0.9999, positions=positions) for positions in (3, None))
    batch = batch_for(policy, 16)
    for _ in range(600):  # the signs of the value's draws matter too, where it shares the network
        some.accumulate(batch)
        every.accumulate(batch)
    conv = next(i for i, layer in enumerate(some.layers) if isinstance(layer, Conv))
    np.testing.assert_allclose(some.factors[conv].A, every.factors[conv].A, rtol=0.05)
    scale = np.abs(every.factors[conv].G).max()
    np.testing.assert_allclose(some.factors[conv].G, every.factors[conv].G, atol=0.1 * scale)
