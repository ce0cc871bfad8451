"""Conjugate gradient against dense solutions; the line search on functions whose answer is known."""

import numpy as np
import pytest

from baselines_lite.common.optim.cg import conjugate_gradient, line_search


def positive_definite(n, rng):
    a = rng.normal(size=(n, n))
    return a @ a.T + 0.1 * np.eye(n)


@pytest.mark.parametrize("n", [1, 2, 7, 20])
def test_n_iterations_solve_n_equations(n):
    rng = np.random.default_rng(n)
    a, b = positive_definite(n, rng), rng.normal(size=n)
    x, residual = conjugate_gradient(lambda v: a @ v, b, iterations=n + 5, tolerance=1e-24)
    np.testing.assert_allclose(x, np.linalg.solve(a, b), rtol=1e-7)
    assert residual == pytest.approx(np.square(b - a @ x).sum(), abs=1e-15)


def test_iterates_minimise_over_the_krylov_space():
    """After k iterations x minimises x A x / 2 - b x over span(b, A b, ..., A^(k-1) b)."""
    rng = np.random.default_rng(0)
    a, b = positive_definite(9, rng), rng.normal(size=9)
    for k in (1, 2, 4):
        basis = np.linalg.qr(np.stack([np.linalg.matrix_power(a, i) @ b for i in range(k)], axis=1))[0]
        best = basis @ np.linalg.solve(basis.T @ a @ basis, basis.T @ b)
        np.testing.assert_allclose(conjugate_gradient(lambda v: a @ v, b, iterations=k).x, best, rtol=1e-8)


def test_zero_and_singular_right_hand_sides_give_numbers():
    zero = conjugate_gradient(lambda v: v * np.nan, np.zeros(3))
    np.testing.assert_array_equal(zero.x, np.zeros(3))
    singular = np.diag([2.0, 0.0])
    np.testing.assert_allclose(conjugate_gradient(lambda v: singular @ v, np.array([1.0, 0.0])).x, [0.5, 0])
    assert np.isfinite(conjugate_gradient(lambda v: singular @ v, np.array([1.0, 1.0])).x).all()
    assert np.isfinite(conjugate_gradient(lambda v: v * np.nan, np.ones(3)).x).all()


def test_float32_in_float32_out():
    assert conjugate_gradient(lambda v: 2 * v, np.ones(3, np.float32)).x.dtype == np.float32


def search(improvement, kl, **options):
    calls = []

    def evaluate(point):
        calls.append(float(point[0]))
        return improvement(point[0]), kl(point[0])

    found = line_search(evaluate, np.zeros(1), np.ones(1), expected=1.0, **{"max_kl": 1.0, "shrink": 0.5, **options})
    return found, calls


def test_the_full_step_is_taken_where_it_is_good():
    found, calls = search(lambda x: x, lambda x: x**2)
    assert found.theta[0] == 1 and found.fraction == 1 and calls == [1.0]


@pytest.mark.parametrize(("improvement", "kl", "fraction"), [
    (lambda x: x, lambda x: 5 * x, 0.125),  # KL decides
    (lambda x: x * (0.3 - x), lambda x: 0.0, 0.125),  # the improvement decides: 0.125 * 0.175 > 0.1 * 0.125
    (lambda x: np.nan if x > 0.4 else x, lambda x: 0.0, 0.25), (lambda x: x, lambda x: np.inf if x > 0.6 else 0.0, 0.5),
])
def test_it_backtracks(improvement, kl, fraction):
    found, calls = search(improvement, kl)
    assert found.fraction == fraction == found.theta[0] == calls[-1]


@pytest.mark.parametrize(("improvement", "kl"), [(lambda x: -x, lambda x: 0.0), (lambda x: x, lambda x: 2.0),
                                                 (lambda x: 0.0, lambda x: 0.0), (lambda x: 0.05 * x, lambda x: 0.0)])
def test_it_restores_the_start_where_nothing_is_good(improvement, kl):
    found, calls = search(improvement, kl, tries=6)
    assert found.fraction == 0 and found.theta[0] == 0 and len(calls) == 6
