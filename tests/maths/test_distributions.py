"""Distributions against scipy, against Monte Carlo, and against their own second derivatives."""

import inspect
import itertools

import gymnasium as gym
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from baselines_lite.common.networks.distributions import Bernoulli, Categorical, DiagGaussian, is_far_from_unit, make_pd
from baselines_lite.common.policies.deterministic_policy import DeterministicPolicy
from baselines_lite.common.system.errors import UserError

RNG = np.random.default_rng(0)
LOGITS, OTHER_LOGITS = RNG.normal(size=(2, 6, 4))
MEAN, OTHER_MEAN = RNG.normal(size=(2, 6, 3))
LOGSTD, OTHER_LOGSTD = RNG.normal(size=(2, 3)) * 0.5

TYPED = "dtype" in inspect.signature(gym.spaces.Discrete).parameters  # in Gymnasium 1.2 it is always int64


def softmax(logits):
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_categorical_against_scipy():
    p, q = softmax(LOGITS), softmax(OTHER_LOGITS)
    pd, other = Categorical(tf.constant(LOGITS)), Categorical(tf.constant(OTHER_LOGITS))
    actions = RNG.integers(4, size=6)
    np.testing.assert_allclose(pd.logp(tf.constant(actions)), np.log(p[np.arange(6), actions]), rtol=1e-12)
    np.testing.assert_allclose(pd.entropy(), scipy.stats.entropy(p, axis=-1), rtol=1e-12)
    np.testing.assert_allclose(pd.kl(other), scipy.stats.entropy(p, q, axis=-1), rtol=1e-12)
    np.testing.assert_array_equal(pd.mode(), p.argmax(-1))


def test_diag_gaussian_against_scipy():
    pd = DiagGaussian(tf.constant(MEAN), tf.constant(LOGSTD))
    actions = RNG.normal(size=(6, 3))
    expected = scipy.stats.norm(MEAN, np.exp(LOGSTD)).logpdf(actions).sum(-1)
    np.testing.assert_allclose(pd.logp(tf.constant(actions)), expected, rtol=1e-12)
    entropy = scipy.stats.multivariate_normal(np.zeros(3), np.diag(np.exp(2 * LOGSTD))).entropy()
    np.testing.assert_allclose(pd.entropy(), np.full(6, entropy), rtol=1e-12)
    np.testing.assert_array_equal(pd.mode(), MEAN)


def test_multi_categorical_and_bernoulli_against_scipy():
    pd, other = (make_pd(gym.spaces.MultiDiscrete([3, 1])).pd(tf.constant(x)) for x in (LOGITS, OTHER_LOGITS))
    p, q = softmax(LOGITS[:, :3]), softmax(OTHER_LOGITS[:, :3])  # the second component has no choice
    actions = np.stack([RNG.integers(3, size=6), np.zeros(6, int)], axis=1)
    np.testing.assert_allclose(pd.logp(tf.constant(actions)), np.log(p[np.arange(6), actions[:, 0]]), rtol=1e-12)
    np.testing.assert_allclose(pd.entropy(), scipy.stats.entropy(p, axis=-1), rtol=1e-12)
    np.testing.assert_allclose(pd.kl(other), scipy.stats.entropy(p, q, axis=-1), rtol=1e-12)
    pd, other = (make_pd(gym.spaces.MultiBinary(4)).pd(tf.constant(x)) for x in (LOGITS, OTHER_LOGITS))
    p, q = (1 / (1 + np.exp(-x)) for x in (LOGITS, OTHER_LOGITS))
    bits = RNG.integers(2, size=(6, 4)).astype(np.int8)
    np.testing.assert_allclose(pd.logp(tf.constant(bits)), scipy.stats.bernoulli(p).logpmf(bits).sum(-1), rtol=1e-12)
    np.testing.assert_allclose(pd.entropy(), scipy.stats.bernoulli(p).entropy().sum(-1), rtol=1e-12)
    kl = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    np.testing.assert_allclose(pd.kl(other), kl.sum(-1), rtol=1e-11)
    np.testing.assert_array_equal(pd.mode(), p > 0.5)


def pairs():
    return {
        "multicategorical": (gym.spaces.MultiDiscrete([[2], [2]]), (LOGITS, None), (OTHER_LOGITS, None)),
        "bernoulli": (gym.spaces.MultiBinary(4), (LOGITS, None), (OTHER_LOGITS, None)),
        "categorical": (gym.spaces.Discrete(4), (LOGITS, None), (OTHER_LOGITS, None)),
        "gaussian": (gym.spaces.Box(-1, 1, (3,)), (MEAN, LOGSTD), (OTHER_MEAN, OTHER_LOGSTD)),
    }


@pytest.mark.parametrize("kind", pairs())
def test_entropy_and_kl_by_monte_carlo(kind):
    """-E log p = H and E[log p - log q] = KL, within three standard errors of 100,000 samples."""
    space, first, second = pairs()[kind]
    pdtype, n = make_pd(space), 100_000
    row = [None if a is None else tf.constant(np.tile(a[:1] if a.ndim == 2 else a, (n, 1))) for a in first]
    other = [None if a is None else tf.constant(np.tile(a[:1] if a.ndim == 2 else a, (n, 1))) for a in second]
    pd, q = pdtype.pd(*row), pdtype.pd(*other)
    actions = pd.sample(tf.constant(pdtype.noise(np.random.default_rng(1), (n,)).astype(np.float64)))
    logp, logq = pd.logp(actions).numpy(), q.logp(actions).numpy()
    assert abs((-logp).mean() - pd.entropy().numpy()[0]) < 3 * logp.std() / np.sqrt(n) + 1e-12
    assert abs((logp - logq).mean() - pd.kl(q).numpy()[0]) < 3 * (logp - logq).std() / np.sqrt(n)


@pytest.mark.parametrize("kind", pairs())
def test_kl_of_itself_is_zero_and_its_hessian_is_the_fisher_matrix(kind):
    """Hessian of KL(old || new) at equality = E[grad log p grad log p^T], by quadrature over actions."""
    space, (head, logstd), _ = pairs()[kind]
    pdtype = make_pd(space)
    size = head.shape[1]
    theta = tf.Variable(head[0] if logstd is None else np.concatenate([head[0], logstd]))

    def pd_of(t, rows=1):
        mean = tf.tile(t[None, :size], (rows, 1))
        return pdtype.pd(mean, None if logstd is None else t[size:])

    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            kl = tf.reduce_sum(pd_of(tf.stop_gradient(theta)).kl(pd_of(theta)))
        gradient = inner.gradient(kl, theta)
    hessian = outer.jacobian(gradient, theta).numpy()
    assert abs(kl.numpy()) < 1e-12
    np.testing.assert_allclose(gradient, 0, atol=1e-12)

    if kind == "categorical":
        actions, weights = np.arange(size), softmax(head[0])
    elif logstd is None:  # 2 x 2 choices or four coins: every outcome with its probability
        actions = np.array(list(itertools.product([0, 1], repeat=2 if kind == "multicategorical" else 4)))
        weights = np.exp(pd_of(theta, len(actions)).logp(tf.constant(actions)))
        assert abs(weights.sum() - 1) < 1e-12
    else:  # Gauss-Hermite: exact for the polynomials that squared scores are
        points, w = np.polynomial.hermite_e.hermegauss(8)
        grid = np.stack(np.meshgrid(*[points] * size, indexing="ij"), -1).reshape(-1, size)
        weights = np.prod(np.stack(np.meshgrid(*[w / w.sum()] * size, indexing="ij"), -1).reshape(-1, size), axis=1)
        actions = head[0] + np.exp(logstd) * grid
    with tf.GradientTape() as tape:
        logp = pd_of(theta, len(actions)).logp(tf.constant(actions))
    scores = tape.jacobian(logp, theta).numpy()
    np.testing.assert_allclose(hessian, np.einsum("b,bi,bj->ij", weights, scores, scores), atol=1e-10)


def test_logits_may_be_shifted_and_extreme():
    shifted = Categorical(tf.constant(LOGITS + 100)).logp(tf.constant([0] * 6))
    np.testing.assert_allclose(shifted, Categorical(tf.constant(LOGITS)).logp(tf.constant([0] * 6)), atol=1e-10)
    extreme = Categorical(tf.constant([[1e4, -1e4, 0.0]]))
    coins = Bernoulli(tf.constant([[1e4, -1e4, 0.0]]))
    for value in (extreme.logp(tf.constant([1])), extreme.entropy(), extreme.kl(Categorical(tf.zeros((1, 3)))),
                  coins.logp(tf.constant([[0, 1, 1]])), coins.entropy(), coins.kl(Bernoulli(tf.zeros((1, 3))))):
        assert np.isfinite(value.numpy()).all()


@pytest.mark.parametrize("kind", pairs())
def test_numpy_draws_what_the_tensors_draw(kind):
    space, (head, logstd), _ = pairs()[kind]
    pdtype = make_pd(space)
    head = head.astype(np.float32)
    logstd = None if logstd is None else logstd.astype(np.float32)
    pd = pdtype.pd(tf.constant(head), None if logstd is None else tf.constant(logstd))
    noise = pdtype.noise(np.random.default_rng(2), (6,))
    np.testing.assert_allclose(pdtype.sample_numpy(head, logstd, noise), pd.sample(tf.constant(noise)), atol=1e-6)
    np.testing.assert_allclose(pdtype.sample_numpy(head, logstd, None), pd.mode(), atol=1e-6)


def test_gumbel_sampling_has_the_softmax_frequencies():
    pdtype, n = make_pd(gym.spaces.Discrete(4)), 200_000
    actions = pdtype.sample_numpy(np.tile(LOGITS[0].astype(np.float32), (n, 1)), None,
                                  pdtype.noise(np.random.default_rng(3), (n,)))
    expected = softmax(LOGITS[0]) * n
    assert scipy.stats.chisquare(np.bincount(actions, minlength=4), expected).pvalue > 1e-3


def test_the_environment_gets_clipped_and_shifted_actions():
    box = make_pd(gym.spaces.Box(np.array([-1.0, -np.inf]), np.array([2.0, 0.0]), dtype=np.float64))
    np.testing.assert_array_equal(box.to_env(np.array([[-3.0, -3.0], [3.0, 3.0]])), [[-1, -3], [2, 0]])
    np.testing.assert_array_equal(make_pd(gym.spaces.Discrete(3, start=5)).to_env(np.array([0, 2])), [5, 7])
    grid = make_pd(gym.spaces.MultiDiscrete([[3, 2], [4, 2]], start=[[1, 0], [-1, 5]]))
    np.testing.assert_array_equal(grid.to_env(np.array([[2, 1, 3, 0]])), [[[3, 1], [2, 5]]])


def test_a_box_may_have_its_actions_scaled_to_its_bounds():
    low, high = [[0, -0.1, -np.inf], [-1, 5, -3]], [[100, 0.1, 2], [1, 6, np.inf]]
    box = make_pd(gym.spaces.Box(np.array(low), np.array(high), dtype=np.float64), scale=True)
    for action, expected in ((0, [[50, 0, 0], [0, 5.5, 0]]), (-0.5, [[25, -0.05, -0.5], [-0.5, 5.25, -0.5]]),
                             (1, [[100, 0.1, 1], [1, 6, 1]]), (4, [[100, 0.1, 2], [1, 6, 4]]),
                             (-4, [[0, -0.1, -4], [-1, 5, -3]])):
        np.testing.assert_allclose(box.to_env(np.full((1, 6), action)), [expected])
    huge = make_pd(gym.spaces.Box(np.float32(-3e38), np.float32(3e38), (1,)), scale=True)
    np.testing.assert_allclose(huge.to_env(np.array([[0.5], [-1]], np.float32)), [[1.5e38], [-3e38]])


@pytest.mark.filterwarnings("error")
def test_unbounded_components_are_left_out_of_the_scaling_without_a_warning():
    low, high = [-np.inf, 0, 3, -np.inf], [np.inf, 10, np.inf, 0]
    box = make_pd(gym.spaces.Box(np.float32(low), np.float32(high)), scale=True)
    np.testing.assert_array_equal(box.to_env(np.float32([[4, 0.5, 4, -4]])), [[4, 7.5, 4, -4]])


@pytest.mark.parametrize(("low", "high", "far"), [
    (-1, 1, False), (-3, 3, False), (-0.4, 2, False), (-3.1, 3.1, True), (-0.3, 0.3, True), (0, 1, True),
    (0, 100, True),
    (-1, np.inf, False), (-np.inf, np.inf, False)])
def test_bounds_are_far_from_unit_by_a_factor_over_three(low, high, far):
    near = gym.spaces.Box(np.float32(-1), np.float32(1), (2,))
    space = gym.spaces.Box(np.array([-1, low], np.float32), np.array([1, high], np.float32))
    assert (is_far_from_unit(near), is_far_from_unit(space), is_far_from_unit(gym.spaces.Discrete(9))) == (
        False, far, False)


@pytest.mark.parametrize("space", [
    gym.spaces.Discrete(3, start=-1), gym.spaces.MultiDiscrete([3, 2], start=[1, 4]),
    gym.spaces.MultiDiscrete([[3, 2], [4, 2]]), gym.spaces.MultiBinary(3), gym.spaces.MultiBinary([2, 2]),
    gym.spaces.Box(-1, 1, (2, 3)), gym.spaces.Box(-1, 1, ()), gym.spaces.Box(-np.inf, 0, (2,), np.float64),
    gym.spaces.Box(-1, 1, (2,), np.float16), *(gym.spaces.MultiDiscrete([3, 2], dtype, start=[1, 4])
                                               for dtype in (np.int32, np.uint8, np.uint64)),
    *(gym.spaces.Discrete(3, start=start, dtype=dtype) for dtype in (np.int32, np.uint8) for start in (0, 2) if TYPED)])
def test_every_action_is_in_its_space(space):
    pdtype, rng = make_pd(space), np.random.default_rng(0)
    head, logstd = rng.normal(size=(50, pdtype.head_size)).astype(np.float32), np.ones(pdtype.head_size, np.float32)
    actions = pdtype.sample_numpy(head, logstd, pdtype.noise(rng, (50,)))
    assert actions.shape == (50, *pdtype.action_shape) and actions.dtype == pdtype.action_dtype
    assert len(np.unique(actions, axis=0)) > 2
    for action in pdtype.to_env(actions):
        assert action.dtype == space.dtype and space.contains(action if space.shape else action[()])


@pytest.mark.parametrize("space", [gym.spaces.Box(0, 9, (2,), dtype=np.int64), gym.spaces.Dict({}),
                                   gym.spaces.Tuple([gym.spaces.Discrete(2)])])
def test_other_spaces_are_refused(space):
    with pytest.raises(UserError, match="supported are Discrete, MultiDiscrete, MultiBinary and Box"):
        make_pd(space)


@pytest.mark.parametrize("make", [make_pd, lambda space: DeterministicPolicy(gym.spaces.Box(-1, 1, (2,)), space)])
def test_empty_action_spaces_are_refused_as_empty(make):
    with pytest.raises(UserError, match=r"action space .* is empty"):
        make(gym.spaces.Box(-1, 1, (0,)))
