"""TensorFlow's start: threads per rank, one GPU per local rank. Call before TensorFlow runs its first op."""

from __future__ import annotations

import os

from baselines_lite.common.mpi import Comm


def threads_per_rank(comm: Comm) -> int:
    """The cores this process may use, shared among the ranks of its host that see the same cores; at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    bound_by_launcher = cores < (os.cpu_count() or 1) and cores * comm.local_size <= (os.cpu_count() or 1)
    return cores if bound_by_launcher else max(1, cores // comm.local_size)


def setup(comm: Comm, threads: int | None = None) -> int:
    """Gives this rank its threads and its GPU (local rank modulo GPUs, growing memory); returns the thread count.

    TensorFlow fixes both at its first op: a later call in the same process changes nothing.
    """
    import tensorflow as tf

    threads = threads or threads_per_rank(comm)
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        gpus = tf.config.list_physical_devices("GPU")
        if gpus:
            gpu = gpus[comm.local_rank % len(gpus)]
            tf.config.set_visible_devices(gpu, "GPU")
            tf.config.experimental.set_memory_growth(gpu, True)
    except RuntimeError:  # already initialised
        threads = tf.config.threading.get_intra_op_parallelism_threads() or threads
    return threads
