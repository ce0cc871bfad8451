"""What is installed here, what is missing, and what mends it. Exit status 0: training would run.

    baselines-lite doctor
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence

from baselines_lite.command_line import complete, parse
from baselines_lite.common.system.errors import UserError, counted
from baselines_lite.common.system.options import option, option_table, override
from baselines_lite.common.system.version import __version__
from baselines_lite.runs.jobs import environment

EXTRAS = {"mpi": "several processes", "mujoco": "MuJoCo's environments", "video": "videos",
          "tensorboard": "TensorBoard's events", "plot": "pages of curves", "benchmark": "tables of benchmarks"}


@dataclasses.dataclass(frozen=True)
class DoctorOptions:
    """What `doctor` knows."""

    help: bool = option(False, "print this text")


@dataclasses.dataclass(frozen=True)
class Finding:
    """A sentence: `good` None tells of something that is merely so; what is not good and `needed` keeps runs back."""

    good: bool | None
    text: str
    needed: bool = False

    def __str__(self) -> str:
        mark = "" if self.good is None else "ok" if self.good else "BROKEN" if self.needed else "missing"
        return f"{mark:8}{self.text}"


def main(arguments: Sequence[str]) -> int:
    """Runs the command `doctor`; 1 where training would not run."""
    options = override(DoctorOptions(), complete(parse(arguments), DoctorOptions))
    if options.help:
        print(f"usage: baselines-lite doctor\n\n{option_table(DoctorOptions())}")
        return 0
    broken = 0
    for part in (python, packages, tensorflow, cores, mpi, environments, video):
        for finding in part():
            print(finding, flush=True)
            broken += finding.good is False and finding.needed
    print("training would not run here: see what is BROKEN above" if broken else "training would run here")
    return int(broken > 0)


def python() -> Iterator[Finding]:
    """Python and this package."""
    import baselines_lite

    yield Finding((3, 11) <= sys.version_info[:2] <= (3, 13), f"Python {platform.python_version()} on "
                  f"{platform.platform(terse=True)}", needed=True)
    yield Finding(True, f"baselines_lite {__version__} in {os.path.dirname(baselines_lite.__file__)}")


def packages() -> Iterator[Finding]:
    """What setup.py asks for, and what each extra does."""
    try:
        wanted = importlib.metadata.requires("baselines-lite") or []
    except importlib.metadata.PackageNotFoundError:
        yield Finding(None, "it is not installed, but run from its folder: pip install -e . looks after what it needs")
        return
    for extra, what in ({"": "everything"} | EXTRAS).items():
        own = [w for w in wanted if (f'"{extra}"' in w.partition(";")[2].replace("'", '"')) == bool(extra)
               and bool(extra) == ("extra ==" in w)]
        faults = [fault for text in own if (fault := fault_of(text.partition(";")[0]))]
        mend = f"pip install 'baselines-lite[{extra}]'" if extra else "pip install baselines-lite"
        yield Finding(not faults, f"packages for {what}" + (f": {', '.join(faults)}; {mend}" if faults else ""),
                      needed=not extra)


def fault_of(requirement: str) -> str | None:
    """What is wrong with the installed release of name>=lower,<upper; None: nothing."""
    name = re.match(r"[\w.-]+", requirement)[0]
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return f"{name} is missing"
    for sign, bound in re.findall(r"(>=|<)([\d.]+)", requirement):
        if (numbers(version) >= numbers(bound)) != (sign == ">="):
            return f"{name} is {version}, not {sign}{bound}"
    return None


def numbers(version: str) -> list[int]:
    """The numbers of a version, without zeros at its end: they are in order where versions are."""
    found = [int(part) for part in re.match(r"[\d.]*", version)[0].split(".") if part]
    while found and found[-1] == 0:
        found.pop()
    return found


def tensorflow() -> Iterator[Finding]:
    """TensorFlow and its devices."""
    from baselines_lite.common.system import tf_setup

    try:
        tf_setup.load()
        import tensorflow as tf

        with tf_setup.quiet():
            gpus = tf.config.list_physical_devices("GPU")
            total = float(tf.reduce_sum(tf.ones([10])))
    except Exception as error:
        yield Finding(False, f"TensorFlow does not start: {brief(error)}; pip install --force-reinstall tensorflow",
                      needed=True)
        return
    yield Finding(total == 10, f"TensorFlow {tf.__version__} computes on {tf_setup.processor()}", needed=True)
    yield Finding(None, f"{counted(len(gpus), 'GPU')}" + ("" if gpus else
                  " (with one: pip install 'baselines-lite[gpu]')"))
    if not tf_setup.gains_from_bfloat16():
        yield Finding(None, "no instructions for bfloat16: --dtype=bfloat16 gains nothing")


def cores() -> Iterator[Finding]:
    """What a run may compute with."""
    from baselines_lite.common.system.mpi import Comm
    from baselines_lite.common.system.tf_setup import threads_per_rank

    yield Finding(None, f"{counted(threads_per_rank(Comm()), 'core')} for this process, of {os.cpu_count()}")
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "XLA_FLAGS", "CUDA_VISIBLE_DEVICES"):
        if name in os.environ:
            yield Finding(None, f"{name}={os.environ[name]} is set, which may limit it further")


def mpi() -> Iterator[Finding]:
    """mpi4py, its library, and a launcher that goes with it: by starting two processes."""
    try:
        version = importlib.metadata.version("mpi4py")
    except importlib.metadata.PackageNotFoundError:
        yield Finding(False, "mpi4py: one process runs without it; several take pip install 'baselines-lite[mpi]'")
        return
    beside = os.path.join(os.path.dirname(sys.executable), "mpirun")
    launcher = shutil.which("mpirun") or shutil.which(beside)
    if launcher is None:
        yield Finding(False, f"mpi4py {version}, but no mpirun on the PATH or beside Python: one process runs without "
                      "it; several take pip install 'baselines-lite[mpi]'")
        return
    # Rank 0 speaks for all; where the launcher is of another MPI, each is alone, and rank 0.
    tell = ("from mpi4py import MPI; w = MPI.COMM_WORLD; found = len(w.gather(0) or []); "
            "w.rank or print(f'found {found} by {MPI.Get_library_version().splitlines()[0]}', flush=True)")
    try:
        done = subprocess.run([launcher, "-np", "2", sys.executable, "-c", tell], capture_output=True, text=True,
                              timeout=120, stdin=subprocess.DEVNULL)
        said, wrong = done.stdout, done.stderr
    except (OSError, subprocess.TimeoutExpired) as error:
        said, wrong = "", brief(error)
    library = " ".join((re.search(r"found \d+ by (.*)", said) or ["", "a library that says nothing"])[1].split())
    text = f"mpi4py {version} with {library}, started by {launcher}"
    if "found 2 " in said:
        yield Finding(True, f"{text}: two processes find each other")
        if shutil.which("mpirun") is None:
            yield Finding(False, "mpirun is not on the PATH, where a shell finds it: one process runs without it; for "
                          f"several: export PATH={shlex.quote(os.path.dirname(beside))}:\"$PATH\"")
    elif "found 1 " in said:
        yield Finding(False, f"{text}: two processes do not find each other, because that launcher is of another MPI; "
                      f"use {beside if os.path.exists(beside) else 'that of ' + library.split()[0]}, or pip install "
                      "'baselines-lite[mpi]' in a fresh environment")
    else:
        yield Finding(False, f"{text}: two processes do not start: {' '.join(wrong.split())[-300:]}")


def environments() -> Iterator[Finding]:
    """One environment of each family that packages bring."""
    from baselines_lite.common.envs.make import make_one

    for name, env_id, needed in (("classic control", "CartPole-v1", True), ("MuJoCo", "HalfCheetah-v5", False),
                                 ("Atari", "PongNoFrameskip-v4", False)):
        yield tried(name, lambda env_id=env_id: make_one(env_id), needed)


def tried(name: str, make: Callable[[], object], needed: bool = False) -> Finding:
    """Whether an environment can be made and stepped."""
    try:
        env = make()
        env.reset(seed=0)
        env.step(env.action_space.sample())
        env.close()
    except UserError as error:
        return Finding(False, f"{name}: {error}", needed)
    except Exception as error:
        return Finding(False, f"{name}: {brief(error)}", needed)
    return Finding(True, f"{name} can be stepped", needed)


def video() -> Iterator[Finding]:
    """Whether windows and videos can be had."""
    from baselines_lite.common.envs import video

    yield Finding(None, "a display for windows" if video.has_display() else
                  "no display: --play writes videos, --record too")
    try:
        video.prepare()
    except UserError as error:
        yield Finding(False, str(error))
        return
    for env_id in ("CartPole-v1", "HalfCheetah-v5"):
        # In a process of its own: how MuJoCo draws is settled when it is imported, and a wrong driver kills it.
        done = subprocess.run([sys.executable, "-c", f"from {__name__} import draw; draw({env_id!r})"],
                              capture_output=True, text=True, env=environment(), stdin=subprocess.DEVNULL)
        wrong = (done.stderr.strip().splitlines() or [f"its process ended with status {done.returncode}"])[-1]
        yield Finding(done.returncode == 0, f"{env_id} can be drawn" if done.returncode == 0 else
                      f"drawing {env_id}: {wrong}")


def draw(env_id: str) -> None:
    """Draws an environment's first frame; ends the process with a sentence where that fails."""
    from baselines_lite.common.envs import video
    from baselines_lite.common.envs.make import make_one

    try:
        video.prepare()
        env = make_one(env_id, "rgb_array")
        env.reset(seed=0)
        with video.drawing(env_id):
            env.render()
    except UserError as error:
        sys.exit(str(error))


def brief(error: BaseException) -> str:
    """An exception in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
