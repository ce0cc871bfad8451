"""Conjugate gradient and the backtracking line search of trust-region methods, in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Solution(NamedTuple):
    """x with A x = b nearly, and the squared norm of what is left, b - A x."""

    x: np.ndarray
    residual: float


def conjugate_gradient(product: Callable[[np.ndarray], np.ndarray], b: np.ndarray, iterations: int = 10,
                       tolerance: float = 1e-10, agree: Callable[[float], float] = lambda number: number) -> Solution:
    """Solves A x = b for a symmetric positive definite A [P, P] given as the function v -> A v (Hestenes and Stiefel).

    Exact after P iterations but for rounding; stops early once the squared residual is below `tolerance`, or where A
    has no curvature along the search direction. In float64. Where `product` is a collective, `agree` is to give all
    ranks the same of a number that their processors may have rounded differently: then they stop together.
    """
    x, r = np.zeros_like(b, np.float64), np.array(b, np.float64)
    p, rr = r.copy(), agree(float(r @ r))
    for _ in range(iterations):
        if rr < tolerance:
            break
        Ap = np.asarray(product(p.astype(b.dtype)), np.float64)
        curvature = agree(float(p @ Ap))
        if not curvature > 0:  # singular, indefinite or not a number: the best so far stands
            break
        step = rr / curvature
        x += step * p
        r -= step * Ap
        rr, before = agree(float(r @ r)), rr
        p = r + (rr / before) * p
    return Solution(x.astype(b.dtype), rr)


class Search(NamedTuple):
    """Where a line search ended: the accepted point and its fraction of the full step; the start and 0 if none."""

    theta: np.ndarray
    fraction: float


def line_search(evaluate: Callable[[np.ndarray], tuple[float, float]], theta: np.ndarray, step: np.ndarray,
                expected: float, *, max_kl: float, shrink: float = 0.8, tries: int = 10, accept_ratio: float = 0.1
                ) -> Search:
    """The longest of theta + shrink^k step, k = 0, 1, ..., that is acceptable (Schulman et al. 2015, appendix C).

    `evaluate` gives (improvement of the surrogate, mean KL) at a point. Acceptable: both finite, KL at most `max_kl`,
    the improvement positive and at least `accept_ratio` of what is `expected` of that fraction of the full step.
    """
    fraction = 1.0
    for _ in range(tries):
        point = theta + (fraction * step).astype(theta.dtype)
        improvement, kl = evaluate(point)
        good = np.isfinite(improvement) and np.isfinite(kl)
        if good and kl <= max_kl and improvement > 0 and improvement >= accept_ratio * fraction * expected:
            return Search(point, fraction)
        fraction *= shrink
    return Search(theta, 0.0)
