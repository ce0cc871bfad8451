"""Sweeps: what jobs are called, what is done about each, and how a sweep ends and goes on."""

import csv
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from scipy import stats

from baselines_lite import UserError
from baselines_lite.runs import jobs, runner, sweep
from baselines_lite.runs.jobs import Job, code_of
from baselines_lite.runs.runner import state_of
from baselines_lite.runs.table import table, texts
from tests.conftest import ROOT, until

# In place of a run: it waits for the file "go", and its last hundred returns are those of its seed.
FAKE = """
import os, signal, sys, time
from pathlib import Path
flags = dict(argument[2:].split("=", 1) for argument in sys.argv[1:])
signal.signal(signal.SIGTERM, signal.SIG_IGN if Path("deaf").exists() else lambda number, frame: sys.exit(128 + number))
folder, seed = Path(flags["log_path"]), float(flags["seed"])
(folder / "progress.csv").write_text("total_timesteps,time_elapsed\\n500,1\\n")
with (folder / "starts").open("a") as file:
    file.write(f"{os.getpid()}\\n")
while not Path("go").exists():
    time.sleep(0.01)
if Path("fail").exists() and seed == 1:
    sys.exit("error: seed 1 does not please")
(folder / "monitor.csv").write_text("#{}\\nr,l,t\\n" + "-99,1,1\\n" * 5 + f"{seed + 1},1,1\\n{seed - 1},1,1\\n" * 50)
(folder / "progress.csv").write_text("total_timesteps,time_elapsed\\n500,1\\n1000,2\\n")
"""
DRIVER = """
import sys
from baselines_lite.command_line import main
from baselines_lite.runs import jobs
jobs.START = (sys.executable, sys.argv[1])
status = main(sys.argv[2:])
assert not {"tensorflow", "mpi4py"} & set(sys.modules)
sys.exit(status)
"""
FLAGS = ("sweep", "--env=CartPole-v1", "--num_timesteps=1000", "--seeds=0-1", "--out=my results")
NAMES = [f"ppo2-CartPole-v1-num_timesteps=1000/seed{seed}" for seed in (0, 1)]


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Has a script in place of the runs."""
    script = tmp_path / "fake.py"
    script.write_text(FAKE)
    monkeypatch.setattr(jobs, "START", (sys.executable, str(script)))
    (tmp_path / "go").touch()
    return script


def rows(folder):
    with (folder / "table.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_names_are_safe_short_and_of_one_job_each():
    plain = Job("ppo2", "CartPole-v1", {"lr": "1e-4"}, seed=3)
    assert plain.name == "ppo2-CartPole-v1-lr=1e-4/seed3"
    assert plain.command == "baselines-lite --alg=ppo2 --env=CartPole-v1 --seed=3 --lr=1e-4"
    several = Job("ppo2", "CartPole-v1", {}, ranks=2)
    assert several.name == "ppo2-CartPole-v1-ranks=2/seed0" and several.command.startswith("mpirun -np 2 baselines-")
    others = [plain, several, Job("ppo2", "ALE/Pong-v5"), Job("ppo2", "ALE_Pong-v5"), Job("ppo2", "a:Pong-v5"),
              Job("ppo2", "b:Pong-v5"), Job("my_lab.my-ppo", "A"), Job("my_lab.my", "ppo-A"), Job("ppo2", "A"),
              Job("ppo2", "A", {"x": "1-y=2"}),
              Job("ppo2", "A", {"x": "1", "y": "2"}), Job("ppo2", "../../A b"), Job("ppo2", "A", {"x": "ä" * 300}),
              Job("ppo2", "A", {"x": "1" * 200}), Job("ppo2", "A", {"x": "1" * 201})]
    names = [job.name for job in others]
    assert len(set(names)) == len(names)
    for name in names:
        group, _, seed = name.partition("/")
        assert len(group) <= 110 and seed.startswith("seed") and not set(group) - set(
            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.=+-") and group[0] != ".", name
    swapped = Job("ppo2", "A", {"y": "2", "x": "1"})
    assert swapped.name == Job("ppo2", "A", {"x": "1", "y": "2"}).name and list(swapped.key["flags"]) == ["x", "y"]


def test_code_is_what_a_run_imports(tmp_path, monkeypatch):
    def digest(*about):
        return code_of(*about)["sha256"]

    lab = tmp_path / "a_lab"
    (lab / "my_alg").mkdir(parents=True)
    (lab / "__init__.py").touch()
    (lab / "my_alg/__init__.py").write_text("Config = PRESETS = learn = None\n")
    (tmp_path / "an_env.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    before = digest("ppo2"), digest("a2c"), digest("a_lab.my_alg"), digest("ppo2", ["an_env"])
    assert len(set(before)) == 4 and before[0] == digest("ppo2", ["no_such_module.here"])
    (lab / "my_alg/more.py").write_text("from baselines_lite import ppo1\n")
    (tmp_path / "an_env.py").write_text("1")
    after = digest("ppo2"), digest("a2c"), digest("a_lab.my_alg"), digest("ppo2", ["an_env"])
    assert [a == b for a, b in zip(before, after)] == [True, True, False, False]
    names = set(jobs.files_of("a_lab.my_alg"))
    assert {"../a_lab/my_alg/more.py", "ppo1/ppo1.py", "common/__init__.py"} <= names and "ppo2/ppo2.py" not in names
    assert {name.partition("/")[0] for name in jobs.files_of("ppo2")} - set(jobs.STARTING) == {"common", "ppo2"}
    code = code_of("ppo2")
    assert set(code) == {"sha256", "commit", "dirty", "version", "versions"} and code["versions"]["numpy"]


def test_code_is_what_ones_own_modules_import_from_beside_them(tmp_path, monkeypatch):
    """Gymnasium's usual layout has the environment's class in a folder of the package that registers it."""
    for name, text in {"many/__init__.py": "", "many/envs/__init__.py": "",
                       "many/envs/maze.py": "import tools, numpy\n", "tools.py": "import more\nimport many\n",
                       "more/__init__.py": "", "more/a.py": "def (",
                       "other.py": "import baselines_lite, more\n", "aside.py": ""}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert set(jobs.own_files("many")) == {"many/__init__.py", "many/envs/__init__.py", "many/envs/maze.py", "tools.py",
                                           "more/__init__.py", "more/a.py"}
    assert set(jobs.own_files("other")) == {"other.py", "more/__init__.py", "more/a.py"}
    assert all(name.startswith("gymnasium/") for name in jobs.own_files("gymnasium"))  # not NumPy, beside it
    before = code_of("ppo2", ["many.envs"])["sha256"]
    (tmp_path / "tools.py").write_text("import more\nimport many\nx = 1\n")
    assert code_of("ppo2", ["many.envs"])["sha256"] != before


def test_every_combination_is_a_job():
    def combined(text):
        flags = dict(flag.removeprefix("--").split("=", 1) for flag in text.split())
        own = {k: flags.pop(k) for k in list(flags) if k in sweep.SweepOptions.__dataclass_fields__}
        return sweep.combinations(sweep.SweepOptions(**own), flags)

    found = combined("--alg=ppo2,trpo_mpi --env=A,B --seeds=0-1,7 --lr=1e-4,linear:3e-4 --sizes=64,64")
    assert len(found) == len({job.name for job in found}) == (2 + 1) * 2 * 3  # trpo_mpi has no lr
    assert found[4] == Job("ppo2", "A", {"lr": "linear:3e-4", "sizes": "64,64"}, seed=1)
    assert found[-1] == Job("trpo_mpi", "B", {"sizes": "64,64"}, seed=7)
    assert [job.flags["sizes"] for job in combined("--env=A --sizes=64,64;400,300")] == ["64,64", "400,300"]
    parts = [sweep.shard(found, f"{n}/4") for n in (1, 2, 3, 4)]
    assert sorted(job.name for part in parts for job in part) == sorted(job.name for job in found)
    assert [job.seed for job in parts[1]][:3] == [1, 7, 0] and len(parts[0]) - len(parts[3]) <= 1
    for text, complaint in {
        "--env=A --lrr=3": "unknown flag '--lrr'; did you mean --lr",
        "--env=A --seed=3": "--seed has no meaning in a sweep: give --seeds",
        "--env=A --play=true": "--play has no meaning in a sweep",
        "--env=A --lr=1,2,1": "--lr=1,2,1 has 1 twice",
        "--env=A --lr=1e-3,0.001": "--lr=1e-3,0.001 has 1e-3 twice", "--env=A, --lr=1": "--env=A, has an empty part",
        "--env=A --seeds=4-0": "--seeds must be such as", "--env=A --seeds=0-2,1": "has a seed twice",
        "--lr=1": "which environments", "--alg=ppo3 --env=A": "unknown algorithm 'ppo3'",
    }.items():
        with pytest.raises(UserError, match=complaint):
            combined(text)
    for text in ("0/4", "5/4", "1", "a/b"):
        with pytest.raises(UserError, match="--shard must be such as"):
            sweep.shard(found, text)


def test_bad_input_is_found_before_anything_is_written(main, tmp_path):
    for flags, complaint in {
        ("--lr=1e-4,x",): "ppo2 on CartPole-v1: 'x' is not a schedule",
        ("--env=CartPole-v1,Cart",): "ppo2 on Cart: unknown environment 'Cart'",
        ("--alg=ppo2,npg", "--network=lstm"): "npg on CartPole-v1: it does not take the network lstm",
        ("--ranks=0",): "ranks must be at least 1", ("--ranks=10", "--num_timesteps=1000"): "10 ranks x num_env=8",
        ("--lr",): "the flag --lr needs a value", ("--merge=a", "--lr=1"): "--env has no meaning with --merge",
        ("--load_path=nothing",): "there is no model file 'nothing'",
    }.items():
        given = {flag.partition("=")[0] for flag in flags}
        done = main("sweep", "--out=o", *flags, *(["--env=CartPole-v1"] if "--env" not in given else []))
        assert done.returncode == 2 and complaint in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert "Give --out" in main("sweep", "--env=CartPole-v1").stderr
    done = main(*FLAGS, "--dry_run", "--normalize_observations")
    assert done.stdout.splitlines()[1] == ("baselines-lite --alg=ppo2 --env=CartPole-v1 --seed=1 --num_timesteps=1000 "
                                           "--normalize_observations=true  # new")
    assert "--seeds" in main("sweep", "--help").stdout and os.listdir(tmp_path) == []


def test_what_is_done_about_a_folder_depends_on_job_and_code(tmp_path):
    job, code = Job("ppo2", "CartPole-v1", {"lr": "1"}), {"sha256": "a"}
    folder = tmp_path / job.name
    assert state_of(job, tmp_path, code) == "new"
    folder.mkdir(parents=True)
    assert state_of(job, tmp_path, code) == "new"
    (folder / "progress.csv").touch()
    assert state_of(job, tmp_path, code) == "old"  # whose is it?
    runner.write_json(folder / "job.json", {"job": job.key, "code": code})
    assert state_of(job, tmp_path, code) == "begun" and state_of(job, tmp_path, {"sha256": "b"}) == "old"
    runner.write_json(folder / "result.json", {"job": job.key, "code": code})
    assert state_of(job, tmp_path, code) == "done" and state_of(job, tmp_path, {"sha256": "b"}) == "old"
    for damaged in ("{", "[]", "{}", '{"job": 3, "code": "a"}'):
        (folder / "result.json").write_text(damaged)
        assert state_of(job, tmp_path, code) == "old"


def test_cores_are_shared_out_where_threads_are_of_use(tmp_path):
    def launched(cores, ranks=1, **flags):
        return Job("ppo2", "CartPole-v1", flags, ranks).launched(tmp_path / "a b", cores)

    assert not any(word.startswith("--threads") for word in launched(8))  # an mlp
    assert "--threads=8" in launched(8, network="cnn") and "--threads=4" in launched(8, 2, network="cnn")
    assert "--threads=1" in launched(1, 2, network="cnn")
    assert [word for word in launched(8, network="cnn", threads="3") if "threads" in word] == ["--threads=3"]
    assert launched(1, 2)[:3] == [jobs.mpirun(), "-np", "2"] and f"--log_path={tmp_path}/a b" in launched(1)


def test_a_sweep_that_is_stopped_or_killed_goes_on(main, fake, tmp_path):
    (tmp_path / "go").unlink()
    out, env = tmp_path / "my results", {**os.environ, "PYTHONPATH": str(ROOT)}
    starts = [out / name / "starts" for name in NAMES]

    def begun(times):
        process = subprocess.Popen([sys.executable, "-c", DRIVER, str(fake), *FLAGS, "--jobs=3"], cwd=tmp_path, env=env,
                                   text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        until(lambda: all(path.exists() and path.read_text().count("\n") == times for path in starts), process)
        return process

    first = begun(1)
    done = main(*FLAGS)  # somebody else at the same time
    assert done.returncode == 1 and done.stdout.count(f"is in use by another run (process {first.pid} on") == 2
    first.send_signal(signal.SIGINT)
    told = first.communicate()[0]
    assert first.returncode == 128 + signal.SIGINT and "SIGINT: 2 runs will end after the present update" in told
    assert "stopped by SIGINT: 0 of 2 done; the same command goes on" in told
    second = begun(2)
    second.kill()
    second.communicate()
    if sys.platform == "linux":  # no run is left behind
        for path in starts:
            place = Path("/proc", path.read_text().split()[-1], "stat")
            until(lambda place=place: not place.exists() or place.read_text().split()[2] == "Z", _Alive)
    assert main(*FLAGS, "--dry_run").stdout.count("# begun") == 2
    (tmp_path / "go").touch()
    done = main(*FLAGS)
    assert done.returncode == 0 and f"{NAMES[1]} is done: 2 of 2 done, 00:00 left" in done.stdout
    assert "ppo2       CartPole-v1  2      0.5   0       1        500\n" in done.stdout
    assert [path.read_text().count("\n") for path in starts] == [3, 3] and not (out / "old").exists()
    assert rows(out)[0]["mean"] == "0.5" and not list(out.rglob("*.lock"))
    assert main(*FLAGS).returncode == 0 and starts[0].read_text().count("\n") == 3  # there is nothing left to do


def test_a_second_signal_kills_the_runs(main, fake, tmp_path, monkeypatch):
    (tmp_path / "go").unlink()
    (tmp_path / "deaf").touch()
    starts, sleep = tmp_path / "my results" / NAMES[0] / "starts", time.sleep
    signals = iter((signal.SIGUSR1, signal.SIGTERM))

    def sleeping(seconds):
        if starts.exists() and starts.read_text():
            for number in itertools.islice(signals, 1):
                signal.raise_signal(number)
        sleep(seconds)

    monkeypatch.setattr(runner.time, "sleep", sleeping)
    done = main(*FLAGS)
    assert done.returncode == 128 + signal.SIGUSR1 and "SIGUSR1: 1 run will end after the" in done.stdout
    assert "stopped by SIGUSR1: 0 of 2 done" in done.stdout and not Path("/proc", starts.read_text().strip()).exists()


class _Alive:
    """In place of a process that `until` looks after."""

    @staticmethod
    def poll():
        return None


def test_failures_are_told_and_tried_again_and_what_is_old_is_made_anew(main, fake, tmp_path, monkeypatch):
    out = tmp_path / "my results"
    (tmp_path / "fail").touch()
    done = main(*FLAGS, "--shard=1/1")
    assert done.returncode == 1 and "1 run of 2 failed; the same command tries it again" in done.stdout
    assert f"{NAMES[1]} failed (exit status 1); " in done.stdout and "    error: seed 1 does not please" in done.stdout
    assert rows(out)[0]["seeds"] == "1"
    (tmp_path / "fail").unlink()
    assert main(*FLAGS, "--shard=1/2").returncode == 0 and rows(out)[0]["seeds"] == "1"
    assert main(*FLAGS, "--shard=2/2").returncode == 0 and rows(out)[0]["seeds"] == "2"

    first = json.loads((out / NAMES[0] / "result.json").read_text())
    code, finish, edits = jobs.code_of("ppo2"), runner.Runner._finish, []

    def edit(self, each):  # the code, when seed 0 has ended
        edits.append(each.job.name)
        finish(self, each)

    for module in (jobs, runner):
        monkeypatch.setattr(module, "code_of", lambda *about: code | {"sha256": f"edit {min(1, len(edits))}"})
    monkeypatch.setattr(runner.Runner, "_finish", edit)
    done = main(*FLAGS)
    assert done.returncode == 0 and done.stdout.count("what other code or another configuration left there") == 2
    assert "the code was changed meanwhile: 1 result of 2 is of what it was before" in done.stdout
    assert [row["code"] for row in rows(out)] == ["edit 0", "edit 1"]
    (aside,) = (out / "old").iterdir()
    assert json.loads((aside / NAMES[0] / "result.json").read_text()) == first


def test_shards_are_merged(main, fake, tmp_path):
    for n in (1, 2):
        assert main(*FLAGS[:-1], f"--out=shard{n}", f"--shard={n}/2").returncode == 0
    (tmp_path / "shard1" / NAMES[0] / "checkpoints").mkdir()
    done = main("sweep", "--merge=shard1,shard2", "--out=all")
    assert done.returncode == 0 and "2 results in 'all', 2 of them new" in done.stdout
    assert rows(tmp_path / "all")[0]["seeds"] == "2" and not (tmp_path / "all" / NAMES[0] / "checkpoints").exists()
    assert main(*FLAGS[:-1], "--out=all", "--dry_run").stdout.count("# done") == 2
    assert "0 of them new" in main("sweep", "--merge=shard1,all", "--out=all").stdout
    path = tmp_path / "shard2" / NAMES[1] / "result.json"
    result = json.loads(path.read_text())
    for change, what in (({"seconds": 99}, None), ({"score": 7}, "result"), ({"code": {"sha256": "b"}}, "code")):
        path.write_text(json.dumps(result | change))
        done = main("sweep", "--merge=shard1,shard2", "--out=all")
        assert done.returncode == (2 if what else 0)
        assert (f"are one run with another {what} each: leave" in done.stderr) == (what is not None)
    assert "there is no folder 'shard3'" in main("sweep", "--merge=shard3", "--out=all").stderr
    (tmp_path / "shard1" / NAMES[0] / "result.json").write_text("{bad")
    told = main("sweep", "--merge=shard1,shard2", "--out=other").stdout
    assert f"left out: 'shard1/{NAMES[0]}/result.json' is damaged" in told and "1 result in 'other'" in told
    (tmp_path / "empty").mkdir()
    done = main("sweep", "--merge=empty", "--out=nothing")
    assert done.returncode == 2 and "there is no result of a sweep in 'empty'" in done.stderr
    assert not (tmp_path / "nothing").exists()


def test_the_table_is_over_seeds():
    def result(seed, score, code="a" * 64, evaluation=None, **flags):
        return {"job": Job("ppo2", "A", {"num_timesteps": "9", **flags}, seed=seed).key, "code": {"sha256": code},
                "score": score, "evaluation": evaluation and {"mean": evaluation}, "steps_per_second": 10.0}

    scores = [1.0, 2.0, 4.0, 8.0, 16.0]
    found = table([*(result(seed, score, lr="1e-4") for seed, score in enumerate(scores)),
                   *(result(seed, 1234.5, lr="3e-4", evaluation=5.0) for seed in range(4)), result(4, None, lr="3e-4"),
                   result(0, 3.0, code="b" * 64, lr="1e-4")])
    interval = stats.t.interval(0.95, 4, loc=6.2, scale=stats.sem(scores))
    assert [row["seeds"] for row in found] == [5, 5, 1] and [row["lr"] for row in found] == ["1e-4", "3e-4", "1e-4"]
    assert found[0]["mean"] == 6.2 and (found[0]["lowest"], found[0]["highest"]) == (1, 16)
    assert (found[0]["low95"], found[0]["high95"]) == pytest.approx(interval)
    assert found[1]["low95"] is None and found[1]["mean"] == 1234.5 and found[1]["evaluation"] == 5  # four of five
    assert texts(found)[0] == ["algorithm", "env", "lr", "seeds", "mean", "lowest", "highest", "low95", "high95",
                               "evaluation", "steps/s", "code"]
    assert texts(found)[2] == ["ppo2", "A", "3e-4", "5", "1,234", "1,234", "1,234", "", "", "5", "10", "a" * 8]
    assert "code" not in texts(found[:2])[0]
