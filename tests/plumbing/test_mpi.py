"""Several processes: they agree, they end together, and they never hang. Under the environment's own mpirun."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import patch

import pytest

from baselines_lite.common.system.mpi import launched_size, wait_for_reader
from baselines_lite.registry import ALGORITHMS
from tests import HANG
from tests.conftest import MPIRUN, ROOT, until
from tests.plumbing.forks import KINDS

REPLAY = ["deepq", "ddpg"]  # algorithms that learn from the past
SMALL = ("--env=CartPole-v1", "--num_env=2", "--nsteps=32", "--noptepochs=1")


@pytest.mark.parametrize("ranks", [2, 3])
def test_collectives(program, ranks):
    done = program("collectives", ranks=ranks)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("sees the difference") == ranks


def test_a_verdict_of_one_rank_reaches_all(program):
    done = program("verdict_of_one_rank")
    assert done.returncode == 2
    for rank in range(2):
        assert f"rank {rank}: the file on rank 1 is bad" in done.stdout


def test_an_exception_on_one_rank_ends_all_with_its_traceback_once(program):
    done = program("exception_on_one_rank", ranks=3)
    assert done.returncode != 0
    assert done.stderr.count("ValueError: a bug on one rank") == 1
    assert "rank 1 of 3" in done.stderr


def test_what_a_rank_says_last_is_read_before_it_ends_the_launcher(tmp_path):
    """mpirun reads no more of its ranks' pipes once one has called MPI_Abort: a third of the tracebacks were lost."""
    read, write = os.pipe()
    with open(write, "w") as stream, open(read, "rb", buffering=0) as reader, ThreadPoolExecutor(1) as pool:
        stream.write("the last words")
        stream.flush()
        wait_for_reader(stream, seconds=0.01)  # nobody reads: no longer than this
        waiting = pool.submit(wait_for_reader, stream, seconds=120)
        assert not waiting.done() or sys.platform != "linux"
        assert reader.read(100) == b"the last words"
        waiting.result()
    with (tmp_path / "file").open("w") as stream:
        stream.write("no pipe")
        stream.flush()
        wait_for_reader(stream, seconds=120)


def test_a_user_error_of_one_rank_ends_all_and_leaves_the_model(program, tmp_path):
    done = program(f"error_of_one_rank,{tmp_path}")
    assert done.returncode == 2
    assert done.stderr.count("error on rank 1 of 2: no more fuel") == 1 and "Traceback" not in done.stderr
    assert "the policy after 96 steps, the last logged update, is saved" in done.stdout and (tmp_path / "m").exists()


def test_sys_exit_on_one_rank_ends_all_with_its_status(program):
    done = program("exit_of_one_rank")
    assert done.returncode == 5
    assert "rank 1 of 2 failed" in done.stderr and done.stderr.count("SystemExit: 5") == 1


def test_ranks_that_hang_in_the_first_update_end_by_sigterm(tmp_path):
    command = [str(MPIRUN), "-np", "2", sys.executable, "-m", "tests.plumbing.programs"]
    process = subprocess.Popen([*command, f"environment_of_one_rank_hangs,{tmp_path}"], cwd=ROOT)
    try:
        until((tmp_path / "hangs").exists, process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=HANG) != 0
    finally:
        process.kill()


STEPS = ["a2c", "acktr", "vpg", "npg:cg", "npg:explicit", "trpo_mpi:kl", "trpo_mpi:penalty", "ppo1:clip",
         "ppo1:kl_fixed", "ppo1:kl_adaptive"]
ON_TWO_RANKS = [
    *(f"equal_parameters,{name}" for name in ALGORITHMS if name not in REPLAY),
    *(f"equal_parameters,ppo2,CartPole-v1,10,{option}" for option in ("sync=epoch", "adv_moments=rank")),
    *(f"equal_parameters,{name},PongNoFrameskip-v4,5" for name in ("ppo2", "trpo_mpi", "acer")),
    *(f"{what},{name}" for what in ("equal_parameters_with_replay", "replay_steps_of_one_rank_equal_two")
      for name in REPLAY),
    *(f"steps_of_one_rank_equal_two,{step}" for step in STEPS),
    *(f"copy_trains,{name}" for name in KINDS),
    "equal_parameters_with_replay,examples.sac",
    "kfac_on_two_ranks", "recurrent_a2c_of_one_rank_equals_two", "acer_of_one_rank_equals_two",
    "one_rank_equals_two,none", "one_rank_equals_two,0.002", "same_seed_same_log",
    "ranks_share_a_default_folder", "rank_0_decides_on_files", "natural_steps_where_ranks_round_differently",
    "episodes_by_step,a2c", "episodes_by_step,deepq",
    *(f"goes_on,{name}" for name in ("ppo2", "acktr", "acer", "deepq")),
]


def outcomes(program, calls):
    """What went wrong on each rank, "" for nothing, by call: all of them in one start, which takes as long as several.

    A call that ends the processes is to blame for that alone: those after it get a start of their own.
    """
    found, rest = {}, list(calls)
    while rest:
        with tempfile.TemporaryDirectory() as folder:
            done = program("--each", folder, *rest)
            last_words = [path.read_text() for path in sorted(Path(folder).glob("rank *"))]
            lines = (Path(folder) / "outcomes").read_text().splitlines() if (Path(folder) / "outcomes").exists() else []
        found |= (ended := dict(map(json.loads, lines)))
        rest = rest[len(ended):]
        if rest:
            found[rest.pop(0)] = ["\n".join([done.stderr, *last_words])]
    return found


def test_a_call_that_fails_fails_alone_and_with_its_own_traceback(program):
    found = outcomes(program, ["exception_on_one_rank", "rank_that_leaves", "rank_that_crashes", "verdict_of_one_rank",
                               "collectives"])
    assert "the ranks part: they are about to ['gather', 'end the call']" in found["exception_on_one_rank"][0]
    assert "ValueError: a bug on one rank" in found["exception_on_one_rank"][1]
    assert "about to ['sum float64 (3,)', 'end the call']" in found["rank_that_leaves"][0]
    assert found["rank_that_leaves"][1] == ""
    assert "rank_that_crashes" in found["rank_that_crashes"][0]
    assert all("SystemExit: 2" in fault for fault in found["verdict_of_one_rank"])
    assert found["collectives"] == ["", ""]


@pytest.fixture(scope="module")
def on_two_ranks(program, request):
    """The outcomes of the selected calls."""
    chosen = [getattr(item, "callspec", None) and item.callspec.params.get("call") for item in request.session.items]
    return outcomes(program, filter(None, chosen))


@pytest.mark.parametrize("call", ON_TWO_RANKS)
def test_two_ranks_agree(on_two_ranks, call):
    """With each other, their experience being different; and with one that has all the data."""
    faults = on_two_ranks[call]
    if any(faults):
        pytest.fail("\n".join(f"rank {rank}: {fault}" for rank, fault in enumerate(faults) if fault), pytrace=False)


def test_three_ranks_agree(program):
    done = program("equal_parameters,ppo2,CartPole-v1,10", ranks=3)
    assert done.stdout.count("agrees") == 3, done.stderr


def test_ranks_with_unlike_settings_are_refused(program):
    done = program("unlike_settings")
    assert done.returncode == 0, done.stderr
    for told in ("algorithm is ['ppo2', 'a2c']", "env is ['CartPole-v1', 'Acrobot-v1']", "num_env is ['2', '3']",
                 "num_hidden is [None, '8']"):
        assert done.stdout.count(f"the ranks' settings differ: {told}; give all the same") == 2


def test_parameters_that_drift_apart_end_the_run(program):
    done = program("parameters_drift_apart")
    assert done.returncode != 0 and "the parameters differ between ranks" in done.stderr


def test_an_unwritable_path_is_told_once_and_all_ranks_exit_2(cli, tmp_path):
    (tmp_path / "file").write_text("precious")
    done = cli(*SMALL, "--log_path=file/logs", ranks=2)
    assert done.returncode == 2
    assert done.stderr.count("cannot write") == 1 and "Traceback" not in done.stderr
    assert (tmp_path / "file").read_text() == "precious"


def test_bad_flags_are_told_once(cli):
    done = cli("--env=CartPole-v1", "--gama=0.9", ranks=3)
    assert done.returncode == 2 and done.stderr.count("did you mean --gamma") == 1


def test_a_launcher_whose_processes_mpi_does_not_see_is_refused(cli):
    for variables in ({"OMPI_COMM_WORLD_SIZE": "2"}, {"SLURM_NTASKS": "4", "SLURM_STEP_ID": "0"}):
        done = cli(*SMALL, "--num_timesteps=1000", env=variables)
        assert done.returncode == 2 and "unrelated copies" in done.stderr


def test_slurm_variables_without_srun_mean_one_process(cli):
    done = cli(*SMALL, "--num_timesteps=64", "--log_path=log", env={"SLURM_NTASKS": "4"})
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("variables", "size"), [
    ({}, 1), ({"SLURM_NTASKS": "4"}, 1), ({"SLURM_NTASKS": "4", "SLURM_STEP_ID": "0"}, 4),
    ({"SLURM_NTASKS": "4", "SLURM_STEPID": "4294967290", "SLURM_STEP_NUM_TASKS": "1"}, 1),  # in salloc's shell
    ({"SLURM_NTASKS": "1", "SLURM_STEPID": "0", "PMI_SIZE": "2"}, 2), ({"OMPI_COMM_WORLD_SIZE": "3"}, 3)])
def test_what_launchers_say(variables, size):
    with patch.dict(os.environ, variables, clear=True):
        assert launched_size() == size


def test_missing_mpi4py_is_explained(cli, tmp_path):
    (tmp_path / "fake/mpi4py").mkdir(parents=True)
    (tmp_path / "fake/mpi4py/__init__.py").write_text("raise ImportError('no MPI here')")
    path = {"PYTHONPATH": str(tmp_path / "fake")}
    done = cli(*SMALL, "--num_timesteps=64", "--log_path=log", env=path)
    assert done.returncode == 0, done.stderr  # one process needs none
    done = cli(*SMALL, "--num_timesteps=1000", env={**path, "OMPI_COMM_WORLD_SIZE": "2"})
    assert done.returncode == 2 and "baselines-lite[mpi]" in done.stderr


@pytest.mark.parametrize(("ranks", "number"), [(1, signal.SIGINT), (2, signal.SIGTERM), (2, signal.SIGINT)])
def test_a_signal_saves_the_policy_on_the_way_out(tmp_path, ranks, number):
    launch = [str(MPIRUN), "-np", str(ranks)] if ranks > 1 else []
    flags = [*SMALL, "--num_timesteps=100000000", "--log_path=log", "--play"]
    process = subprocess.Popen([*launch, sys.executable, str(ROOT / "run.py"), *flags], cwd=tmp_path,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ, text=True)
    try:
        csv = tmp_path / "log/progress.csv"
        until(lambda: csv.exists() and csv.read_text().count("\n") > 5, process)
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=HANG)
    finally:
        process.kill()
    assert process.returncode == 128 + number, stderr
    assert stdout.count("the run stops after this update") == 1 and "episode 1" not in stdout
    assert stderr.count(f"exit status {128 + number}, nothing is played") == 1
    assert (tmp_path / "log/model.safetensors").exists() and (tmp_path / "log/curve.png").exists()
