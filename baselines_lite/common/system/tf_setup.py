"""TensorFlow's start: quiet import, threads per rank, one GPU per local rank. Before TensorFlow runs its first op.

The threads of the other pools of a process, NumPy's and SciPy's BLAS, while it computes. And the import of modules that
the user names.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import os
import platform
import re
import sys
import sysconfig
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from types import ModuleType

from baselines_lite.common.system.errors import UserError
from baselines_lite.common.system.mpi import Comm


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps C++ start-up messages off stderr unless TF_CPP_MIN_LOG_LEVEL is 0; an exception brings them back.

    TensorFlow 2.21 writes some of them before it reads that variable, so that only the file descriptor helps.
    """
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "0":
        yield
        return
    with tempfile.TemporaryFile() as held:
        stderr = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


class QuietImport(importlib.abc.MetaPathFinder):
    """Makes TensorFlow's import quiet, wherever it is imported first: in our files or in the user's."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
                  ) -> importlib.machinery.ModuleSpec | None:
        """As Python's own; what it finds is executed quietly."""
        spec = importlib.machinery.PathFinder.find_spec(name, path) if name == "tensorflow" else None
        if spec is not None and spec.loader is not None:
            spec.loader.exec_module = quiet()(spec.loader.exec_module)
        return spec


sys.meta_path.insert(0, QuietImport())


def load() -> None:
    """Imports TensorFlow."""
    import tensorflow  # noqa: F401


def imported(module: str, what: str) -> ModuleType:
    """The module of that name, which the user has named for `what`.

    Raises UserError where it cannot be imported: with the place in the user's own code, not with the way there.
    """
    try:
        return importlib.import_module(module)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"cannot import {what}: {failure(error)}") from None


def failure(error: Exception) -> str:
    """An exception out of an import in one line, after its last place outside of Python's own and installed files."""
    said = " ".join(f"{'' if isinstance(error, ImportError) else f'{type(error).__name__}: '}{error}".split())
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}: {type(error).__name__}: {error.msg}"
    common = os.path.dirname(os.path.dirname(__file__))
    others = ("<frozen", *(os.path.join(folder, "") for folder in (
        common, *map(sysconfig.get_path, ("stdlib", "purelib", "platlib")))))
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(others)]
    return f"{own[-1].filename}, line {own[-1].lineno}: {said}" if own else said


def threads_per_rank(comm: Comm) -> int:
    """The cores this process may use, shared among the ranks of its host that see the same cores; at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    bound_by_launcher = cores < (os.cpu_count() or 1) and cores * comm.local_size <= (os.cpu_count() or 1)
    return cores if bound_by_launcher else max(1, cores // comm.local_size)


def threads_for(small: bool, comm: Comm) -> int:
    """The threads that a rank computes with unless it is told otherwise: 1 for what is small."""
    return 1 if small else threads_per_rank(comm)


def limited_pools(threads: int) -> contextlib.AbstractContextManager:
    """A context in which BLAS and OpenMP have at most so many threads; gives back what they had.

    OpenBLAS takes a thread for each core when NumPy is imported, and SciPy brings another one. Two ranks' threads spin
    against each other: ppo2 on CartPole took 45,200 steps/s on two ranks without, 4,400 with them. Environment
    variables come too late for a library that is loaded, this too early for one that is not.
    """
    import threadpoolctl

    return threadpoolctl.threadpool_limits(threads)


def limit_worker() -> None:
    """Gives BLAS and OpenMP one thread each for good, in a process that steps one environment beside others."""
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"  # for what is loaded later
    limited_pools(1)


def setup(comm: Comm, threads: int) -> int:
    """Gives this rank its threads and its GPU (local rank modulo GPUs, growing memory); returns the thread count.

    TensorFlow fixes both at its first op: a later call in the same process changes nothing.
    """
    import tensorflow as tf

    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        with quiet():
            gpus = tf.config.list_physical_devices("GPU")
            if gpus:
                gpu = gpus[comm.local_rank % len(gpus)]
                tf.config.set_visible_devices(gpu, "GPU")
                tf.config.experimental.set_memory_growth(gpu, True)
            tf.constant(0)  # starts the runtime
    except RuntimeError:  # already started
        return tf.config.threading.get_intra_op_parallelism_threads() or threads_per_rank(Comm())
    return threads


def cpuinfo() -> str:
    """What Linux says of the processor; nothing elsewhere."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""


def processor() -> str:
    """The processor's model."""
    model = re.search(r"^model name\s*:\s*(.+)$", cpuinfo(), re.MULTILINE)
    return model[1] if model else platform.processor() or platform.machine()


def gains_from_bfloat16() -> bool:
    """Whether the device computes in bfloat16: a GPU, or a CPU with instructions for it (Linux tells; else False)."""
    import tensorflow as tf

    if tf.config.list_logical_devices("GPU"):
        return True
    return bool(set(cpuinfo().split()) & {"avx512_bf16", "amx_bf16", "bf16"})
