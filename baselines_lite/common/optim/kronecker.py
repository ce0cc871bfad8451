"""A layer's Kronecker factors and their inverses, as K-FAC needs them."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from scipy.linalg import cython_lapack

from baselines_lite.common.networks.layers import Conv, Dense
from baselines_lite.common.networks.parameters import Parameter
from baselines_lite.common.system.mpi import Comm

Layer = Dense | Conv

LARGE = 1024  # rows of a factor beyond which float64 is too slow to invert it


class Factors(NamedTuple):
    """A layer's Kronecker factors: A [n, n] of inputs, G [m, m] of output gradients."""

    A: Any
    G: Any


class Inverses(NamedTuple):
    """The damped inverses of a layer's A and G."""

    A: Any
    G: Any


# ---------------------------------------------------------------------------------------------------- statistics

def inputs_of(layer: Layer, x: tf.Tensor, positions: tf.Tensor | None = None) -> tf.Tensor:
    """What multiplies a layer's V: the inputs with a 1 appended, [B, 1, n], or a convolution's patches [B, T, n].

    `positions` [T] picks from a convolution's output positions, counted row by row; None: all.
    """
    if isinstance(layer, Dense):
        a = x[:, None]
    else:
        k, s = layer.w.shape[0], layer.stride
        if layer.padding == "SAME":
            missing = [max((-(-n // s) - 1) * s + k - n, 0) for n in x.shape[1:3]]
            x = tf.pad(x, [[0, 0], *([m // 2, m - m // 2] for m in missing), [0, 0]])
        if positions is None:
            a = tf.image.extract_patches(x, [1, k, k, 1], [1, s, s, 1], [1, 1, 1, 1], "VALID")
            a = tf.reshape(a, [-1, a.shape[1] * a.shape[2], a.shape[3]])
        else:  # cut out those that are wanted: cheaper than all patches, of which a layer has up to 400
            columns = (x.shape[2] - k) // s + 1
            a = tf.stack([tf.slice(x, [0, p // columns * s, p % columns * s, 0], [-1, k, k, -1])
                          for p in tf.unstack(positions)], axis=1)
            a = tf.reshape(a, [-1, a.shape[1], k * k * x.shape[3]])
    a = tf.cast(a, layer.w.dtype) * getattr(layer, "scale", 1.0)
    return tf.concat([a, tf.ones_like(a[:, :, :1])], axis=2)


def factors_of(layer: Layer, x: tf.Tensor, g: tf.Tensor, positions: tf.Tensor | None = None) -> Factors:
    """A and G of a batch: inputs x [B, ...], gradients g [B, ...] of each example's own log-likelihood.

    For T output positions (1 for a dense layer): A = sum over positions, mean over examples, of a a^T; G = mean over
    both of g g^T. With `positions` [P] given, A is scaled up from those to all of them.
    """
    total = int(np.prod(g.shape[1:-1]))
    g = tf.cast(tf.reshape(g, [-1, total, g.shape[-1]]), layer.w.dtype)
    if positions is not None:
        g = tf.gather(g, positions, axis=1)
    a, g = (tf.reshape(z, [-1, z.shape[-1]]) for z in (inputs_of(layer, x, positions), g))
    rows = tf.cast(tf.shape(a)[0], a.dtype)
    return Factors(total * tf.matmul(a, a, transpose_a=True) / rows, tf.matmul(g, g, transpose_a=True) / rows)


# ------------------------------------------------------------------------------------------------------ inverses

def damped_inverses(factors: Factors, damping: float) -> Inverses:
    """The inverses of A + pi sqrt(damping) I and G + sqrt(damping) / pi I (Martens and Grosse, section 6.3).

    pi = sqrt((tr A / dim A) / (tr G / dim G)) gives each factor damping in proportion to its size; 1 where one is zero.
    In float64 unless that takes seconds.
    """
    mean_a, mean_g = (np.trace(f) / len(f) for f in factors)
    pi = np.sqrt(mean_a / mean_g) if mean_a > 0 and mean_g > 0 else 1.0
    root, found = np.sqrt(damping), []
    for f, shift in zip(factors, (pi * root, root / pi), strict=True):
        damped = np.array(f, np.float64 if len(f) <= LARGE else f.dtype)
        damped[np.diag_indices(len(f))] += shift
        found.append(inverse(damped).astype(f.dtype))
    return Inverses(*found)


def inverse(matrix: np.ndarray) -> np.ndarray:
    """The inverse of a symmetric positive definite matrix, which is overwritten; NaN where it is not one.

    By Cholesky's factors: a quarter of the time of a general inverse.
    """
    size, failed = ctypes.c_int(len(matrix)), ctypes.c_int(0)
    for name in ("potrf", "potri"):  # factorise, then invert; "U" of LAPACK's order of memory is our lower triangle
        lapack(name, matrix.dtype)(b"U", ctypes.byref(size), matrix.ctypes.data, ctypes.byref(size),
                                   ctypes.byref(failed))
        if failed.value:
            return np.full_like(matrix, np.nan)
    return np.tril(matrix) + np.tril(matrix, -1).T


@functools.cache
def lapack(name: str, dtype: np.dtype) -> Callable[..., None]:
    """A routine (uplo, n, a, lda, info) of SciPy's LAPACK for float32 or float64, called by way of ctypes.

    SciPy's own wrappers of these hold Python's lock for as long as they compute, so that no other thread could run.
    """
    capsule = ctypes.py_object(cython_lapack.__pyx_capi__[{"float32": "s", "float64": "d"}[dtype.name] + name])
    signature, pointer = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    signature.restype, pointer.restype, pointer.argtypes = ctypes.c_char_p, ctypes.c_void_p, [ctypes.py_object,
                                                                                              ctypes.c_char_p]
    routine = ctypes.CFUNCTYPE(None, ctypes.c_char_p, *[ctypes.c_void_p] * 4)
    return routine(pointer(capsule, signature(capsule)))


class Inverter:
    """Computes the damped inverses of all layers, each layer on one rank, and swaps them in all at once.

    Synchronous: `refresh` returns when they are there. Asynchronous: it hands a copy of the factors to a thread and
    returns; the `delay`-th `poll` after it waits for the thread and swaps the results in: were that as soon as they are
    there, a run would not repeat itself. `inverses` are the latest; those of which one is not finite are left out and
    counted in `failed`.
    """

    def __init__(self, comm: Comm, sizes: Sequence[tuple[int, int]], damping: float, asynchronous: bool,
                 delay: int = 1) -> None:
        self.comm, self.damping, self.delay = comm, damping, delay
        self.inverses: list[Inverses] | None = None
        self.failed = self._due = 0  # polls until the results are swapped in; 0: nothing is being computed
        self._owners = owners(sizes, comm.size)
        self._thread = ThreadPoolExecutor(1) if asynchronous else None
        self._job: Future[dict[int, Inverses]] = Future()

    def refresh(self, factors: Sequence[Factors]) -> None:
        """Brings the inverses up to date with the factors: now, or at a later `poll`."""
        if self._due:
            return  # the last ones are not there yet
        copies = {i: Factors(*(np.array(f) for f in pair)) for i, pair in enumerate(factors)
                  if self._owners[i] == self.comm.rank}
        if self._thread is None:
            self._swap_in(self._invert(copies))
        else:
            self._job, self._due = self._thread.submit(self._invert, copies), self.delay

    def poll(self) -> None:
        """Swaps in what a thread has computed, if it is time."""
        if self._due:
            self._due -= 1
            if not self._due:
                self._swap_in(self._job.result())

    def state(self) -> dict[str, Any]:
        inverses = self.inverses and [[part.numpy() for part in pair] for pair in self.inverses]
        found = self._job.result() if self._due else {}
        return {"inverses": inverses, "failed": self.failed, "_due": self._due,
                "found": {str(i): list(pair) for i, pair in found.items()}}

    def restore(self, state: Mapping[str, Any]) -> None:
        inverses = state["inverses"]
        self.inverses = inverses and [Inverses(*map(tf.constant, pair)) for pair in inverses]
        self.failed, self._due, self._job = state["failed"], state["_due"], Future()
        self._job.set_result({int(i): Inverses(*pair) for i, pair in state["found"].items()})

    def _invert(self, factors: dict[int, Factors]) -> dict[int, Inverses]:
        return {i: damped_inverses(pair, self.damping) for i, pair in factors.items()}

    def _swap_in(self, mine: dict[int, Inverses]) -> None:
        found = [self.comm.broadcast(mine.get(i), root=rank) for i, rank in enumerate(self._owners)]
        if all(np.isfinite(part).all() for pair in found for part in pair):
            self.inverses = [Inverses(*map(tf.constant, pair)) for pair in found]
        else:
            self.failed += 1


def owners(sizes: Sequence[tuple[int, int]], ranks: int) -> list[int]:
    """The rank that inverts each layer: the largest first, each to the rank with the least to do so far."""
    cost = [n**3 + m**3 for n, m in sizes]
    load, owner = [0] * ranks, [0] * len(cost)
    for i in sorted(range(len(cost)), key=lambda i: -cost[i]):
        owner[i] = load.index(min(load))
        load[owner[i]] += cost[i]
    return owner


# ------------------------------------------------------------------------------------------ precondition and clip

def to_matrix(w: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """A layer's weights [..., m] and bias [m] (or gradients by them) as its V [n, m], the bias last."""
    return tf.concat([tf.reshape(w, [-1, w.shape[-1]]), b[None]], axis=0)


def from_matrix(matrix: tf.Tensor, w: Parameter) -> tuple[tf.Tensor, tf.Tensor]:
    """The inverse of `to_matrix`, for weights of the shape of `w`."""
    return tf.reshape(matrix[:-1], w.shape), matrix[-1]


def factor_sizes(layer: Layer) -> tuple[int, int]:
    """The rows of a layer's A, its inputs and the bias, and of its G, its outputs."""
    return int(np.prod(layer.w.shape[:-1])) + 1, layer.w.shape[-1]
