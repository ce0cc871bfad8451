"""The suites can be run, and the report says what the results' files say."""

import json
import os
import re
import shutil
import signal
import subprocess
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from baselines_lite import ppo2
from benchmarks import recipes, report, results, run, suites, tables, torture
from benchmarks.results import Result, curve_of, scores_of
from benchmarks.suites import SUITES, Task
from tests.conftest import ROOT


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Results of three algorithms on two tasks: five seeds of the first two, three of the third."""
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    monkeypatch.setattr(report, "RESAMPLES", 20)
    rng = np.random.default_rng(0)
    for task, low, high in (("cartpole", 20, 480), ("acrobot", -500, -90)):
        for alg, seeds in (("ppo2", 5), ("a2c", 5), ("deepq", 3)):
            for seed in range(seeds):
                steps = np.cumsum(rng.integers(50, 200, 300))
                returns = np.linspace(low, high, 300) + rng.normal(0, 10, 300)
                evaluations = np.stack([np.linspace(1e4, 2e5, 20), np.linspace(low, high, 20)[::-1]], axis=1)
                facts = {"command": f"baselines-lite --alg={alg} --seed={seed}", "commit": "0123456789", "code": "c",
                         "dirty": alg == "a2c", "seconds": 90.0}
                Result("classic", task, alg, seed, facts, scores_of(returns, evaluations),
                       curve_of(steps, steps / 1e6, returns), evaluations).write()
    return tmp_path


def test_scores():
    returns, evaluations = np.arange(200.0), np.array([[1.0, 5.0], [2.0, 9.0], [3.0, 7.0]])
    assert scores_of(returns, evaluations) == {"last100": 149.5, "training": 99.5, "evaluation": 7.0, "maximum": 9.0}
    assert scores_of(returns[:3], evaluations[:0]) == {"last100": 1.0, "training": 1.0}


def test_a_curve_is_the_mean_of_the_last_hundred_at_few_points():
    returns = np.arange(1000.0)
    steps, hours, values = curve_of(np.arange(1, 1001) * 10, np.arange(1000) / 100, returns)
    assert len(steps) <= results.POINTS and steps[0] == 10 and steps[-1] == 10_000
    row = len(steps) // 2
    episode = int(steps[row] // 10) - 1
    assert values[row] == returns[episode - 99 : episode + 1].mean() and hours[row] == episode / 100


def test_the_area_is_the_mean_over_steps():
    curve = np.array([[0.0, 100.0, 400.0], [0, 0, 0], [0.0, 0.0, 6.0]])
    result = Result("s", "t", "a", 0, {}, {}, curve, np.empty((0, 2)))
    assert result.area == pytest.approx(300 * 3 / 400)


def test_an_interval_takes_five_seeds():
    assert report.interval(np.arange(4.0)) is None
    low, high = report.interval(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert (low, high) == pytest.approx((3 - 1.9632, 3 + 1.9632), abs=1e-3)  # t_4 = 2.7764, deviation 1.5811 / sqrt(5)


def test_what_is_written_is_what_is_read(written):
    found = list(results.everything(written))
    assert len(found) == 26 and [r.seed for r in found[:5]] == [0, 1, 2, 3, 4]
    again = found[0]
    again.write()
    (same,) = [r for r in results.everything(written) if r.folder == again.folder and r.seed == again.seed]
    np.testing.assert_array_equal(same.curve, again.curve)
    assert same.scores == again.scores and same.facts == again.facts


def test_a_result_is_there_when_all_of_it_is(written, monkeypatch):
    """By its JSON file a run counts as done: killed before its curve is written, it does not."""
    again = next(results.everything(written))
    place = again.folder / f"seed{again.seed}.json"
    place.unlink()

    def full(*given):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(results, "table", full)
        with pytest.raises(OSError, match="No space"):
            again.write()
    assert not place.exists()
    again.write()
    assert len(list(results.everything(written))) == 26


def test_the_report(written):
    assert report.main(["--results", str(written)]) == 0
    assert report.main(["--results", str(written), "--check"]) == 0  # the same again, bootstrap and all
    page = (written / "classic/README.md").read_text()
    scores = np.array([r.scores["last100"] for r in results.everything(written)
                       if (r.task, r.algorithm) == ("cartpole", "ppo2")])
    row = next(line for line in page.splitlines() if line.startswith("| ppo2 | 5 | "))
    assert row.split(" | ")[2].startswith(f"{scores.mean():.1f} (") and " to " in row.split(" | ")[2]
    few = next(line for line in page.splitlines() if line.startswith("| deepq | 3 | "))
    assert few.split(" | ")[2].count(", ") == 2 and " to " not in few.split(" | ")[2]
    assert "0123456+ |" in page, "what came of changes that no commit has is marked"
    assert "| last 100 episodes of training | ppo (cleanrl ppo.py) | 490.0" in page
    assert "| last evaluation | ppo | 500.0" in page, "each kind is compared with its own"
    assert ("Not measured yet: vpg, npg, trpo_mpi, ppo1, acktr, acer on cartpole, acrobot; "
            "all on mountaincar, lunarlander, pendulum.") in page
    across = page[page.index("## Across tasks"):]
    assert "| ppo2 | 5 x 2 | " in across and "| deepq | 3 x 2 | " in across
    for name in ("curves.png", "scores.png", "profile.png"):
        assert (written / "classic" / name).read_bytes().startswith(b"\x89PNG")
    np.random.seed(7)
    report.draw_profile(report.normalised("classic", report.by_task(results.everything(written))),
                        written / "again.png")
    assert (written / "again.png").read_bytes() == (written / "classic/profile.png").read_bytes(), (
        "a profile is one of other suites' draws")
    edited = next(written.glob("classic/cartpole/ppo2/seed0.json"))
    edited.write_text(edited.read_text().replace('"last100": ', '"last100": 1'))
    assert report.main(["--results", str(written), "--check"]) == 1


def test_recipes_are_compared(tmp_path, uncompiled, capsys):
    """By the worst of their tasks."""
    for name, rate, ranks in ("slow", "0", 1), ("fast", "1e-3", 2):
        for seed in (10, 11):
            folder, flags = tmp_path / f"{name}/ppo2/seed{seed}", {"lr": rate, "num_timesteps": "512"}
            ppo2.learn("CartPole-v1", 512, lr=rate, noptepochs=1, log_path=folder, seed=seed, print_interval=1e9)
            (folder / "result.json").write_text(json.dumps({
                "status": 0, "job": {"alg": "ppo2", "env": "CartPole-v1", "seed": seed, "ranks": ranks, "flags": flags},
                "code": {"commit": "0123456789", "dirty": True}}))
    recipes.main(["rates", str(tmp_path / "slow"), str(tmp_path / "fast"), f"--results={tmp_path / 'results'}"])
    place = tmp_path / "results/experiments/ppo2/rates"
    text = (place / "README.md").read_text()
    assert re.search(r"^\| slow \| \d\d\.\d \(\d\d\.\d, \d\d\.\d\) \| -?0\.\d\d \(CartPole-v1\) \|$", text, re.M)
    ends = [float((place / f"slow-CartPole-v1-seed{seed}.csv").read_text().splitlines()[-1].split(",")[2])
            for seed in (10, 11)]
    assert f"({ends[0]:.1f}, {ends[1]:.1f})" in text, "a curve that is kept ends with its score"
    command = "baselines-lite --alg=ppo2 --env=ENV --seed=SEED --lr="
    assert f"- slow: `{command}0 --num_timesteps=512`, 0123456+" in text
    assert f"- fast: `mpirun -np 2 {command}1e-3 --num_timesteps=512`, 0123456+" in text
    other = {"status": 0, "job": {"alg": "a2c", "env": "CartPole-v1", "seed": 0, "ranks": 1, "flags": {"lr": "1"}}}
    for name, words in (("mixed/a/seed0", "differ in --lr"), ("none", "no run of a sweep in"),
                        ("others/a/seed0", "runs of a2c and ppo2")):
        (tmp_path / name).mkdir(parents=True)
        if "/" in name:
            (tmp_path / name / "result.json").write_text(json.dumps(other))
        if name.startswith("mixed"):
            shutil.copytree(tmp_path / "slow/ppo2", tmp_path / "mixed/ppo2")
        folders = [str(tmp_path / name.partition("/")[0]), str(tmp_path / "slow")]
        assert recipes.main(["more", *folders, f"--results={tmp_path / 'results'}"]) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "results/experiments/ppo2/more").exists()
    run = {"job": {"env": "A", "ranks": 1, "flags": {}}, "code": {"commit": "0123456789", "dirty": False}}
    other = {"job": {"env": "B", "ranks": 1, "flags": {}}, "code": {"commit": "abcdef0123", "dirty": False}}
    told = recipes.page("rates", "ppo2", [("fast", run), ("fast", other)], {"fast": {"A": [1.0], "B": [2.0]}})
    assert told.endswith(", 0123456 (A), abcdef0 (B)\n"), "one commit was told for the runs of two"
    assert {path.name for path in place.iterdir()} == {"README.md", "curves.png"} | {
        f"{name}-CartPole-v1-seed{seed}.csv" for name in ("slow", "fast") for seed in (10, 11)}


@pytest.mark.parametrize("suite", SUITES)
def test_no_two_tasks_of_a_suite_have_one_title(suite):
    """By its title a panel, and a choice of the page, is found."""
    assert len({report.title(suite, task) for task in SUITES[suite]}) == len(SUITES[suite])


def test_the_pages_that_are_committed_are_what_the_files_give(capsys):
    assert report.main(["--check"]) == 0, f"run python -m benchmarks.report: {capsys.readouterr().out}"


def test_the_page_in_a_browser(written, tmp_path):
    """It needs no network, and shows the first suite's first task when it opens."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("there is no Chromium here")
    report.main(["--results", str(written)])
    page = (written / "page.html").read_text()
    assert "src=" not in page.partition("<script>")[0] and "@DATA@" not in page
    shown = subprocess.run([browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/p",
                            "--virtual-time-budget=10000", "--dump-dom", f"file://{written}/page.html"],
                           capture_output=True, text=True).stdout
    assert "<option>Acrobot-v1</option>" in shown and "ppo2 (5 runs)" in shown and "main-svg" in shown
    assert shown.count("<td>baselines-lite --alg=") == 13


def test_published_scores_are_of_tasks_that_are_run():
    envs = {task.env for suite in suites.SUITES.values() for task in suite.values()}
    for name, suite in suites.SUITES.items():
        for task in suite.values():
            assert all(row["kind"] in results.KINDS and row["env"] in envs
                       for row in report.published(name, task, task.algorithms))
    assert report.published("mujoco1M", suites.SUITES["mujoco1M"]["hopper"], ["ppo2"])


@pytest.mark.parametrize("suite", SUITES)
def test_every_run_of_a_suite_would_begin(suite):
    """Its flags are known, its values accepted, as far as a run's beginning can tell."""
    for task in SUITES[suite].values():
        assert set(task.goals) <= set(task.algorithms)
        for alg in task.algorithms:
            job = run.job_of(task, alg, 0)
            updates = float(job.flags["num_timesteps"]) / int(job.flags["eval_interval"])
            config = job.resolved().config
            assert 19 <= updates / (config.num_env * config.nsteps * task.ranks) <= 41, (suite, alg)


def test_a_suite_that_is_stopped_goes_on(tmp_path, monkeypatch, capfd):
    """And gives what one gives that was left alone; what is there is not run again, and an edit makes it old."""
    tiny = Task("CartPole-v1", 1e4, ("ppo2",), flags={"nsteps": "32", "checkpoint_seconds": "0", "log_interval": "1"})
    monkeypatch.setitem(SUITES, "tiny", {"cartpole": tiny})
    arguments = ["tiny", "--seeds=3"]

    def result(name, *more):
        monkeypatch.setattr(run, "RESULTS", tmp_path / name / "results")
        monkeypatch.setattr(results, "RESULTS", tmp_path / name / "results")
        status = run.main([*arguments, f"--out={tmp_path / name / 'logs'}", *more])
        found = list(results.everything(tmp_path / name / "results"))
        return status, found[0] if found else None

    logs = tmp_path / "stopped/logs" / run.job_of(tiny, "ppo2", 3).name

    def stop():
        while not any(logs.glob("checkpoints/*/manifest.json")):
            if over.wait(0.05):
                return
        os.kill(os.getpid(), signal.SIGTERM)

    over, stopper = threading.Event(), threading.Thread(target=stop)
    stopper.start()
    status, nothing = result("stopped")
    over.set()
    stopper.join()
    assert (status, nothing) == (128 + signal.SIGTERM, None)
    status, stopped = result("stopped")
    assert status == 0 and "goes on after update" in (logs / "output.txt").read_text()
    returns = [float(line.split(",")[0]) for line in (logs / "monitor.csv").read_text().splitlines()[2:]]
    told, config = (json.loads((logs / name).read_text()) for name in ("result.json", "config.json"))
    assert told["score"] == pytest.approx(np.mean(returns[-100:])) and told["steps"] == 9984 and told["status"] == 0
    assert config["command"].startswith(str(ROOT / "baselines_lite")) and (logs / "model.safetensors").exists()
    status, alone = result("alone")
    assert alone.facts["options"] == run.options_of(run.jobs_of(run.parsed(["tiny", "--seeds=3"]))[0][0])
    assert status == 0 and stopped.scores == alone.scores and len(alone.evaluations) >= 20
    np.testing.assert_array_equal(stopped.evaluations, alone.evaluations)
    np.testing.assert_array_equal(stopped.curve[[0, 2]], alone.curve[[0, 2]])
    capfd.readouterr()
    result("alone", "--plan")
    assert "tiny: 1 result of 1 there, 0 to do here" in capfd.readouterr().out
    path = next((tmp_path / "alone/results").rglob("seed3.json"))
    path.write_text(path.read_text().replace('"code": "', '"code": "0'))
    result("alone", "--plan")
    assert "1 to do here; 1 of older code or another command:\n  ppo2-CartPole-v1" in capfd.readouterr().out


def test_a_run_without_a_result_keeps_no_other_back(tmp_path, monkeypatch, capsys):
    """Of one that has ended before its first episode there is none; those after it have theirs all the same."""
    monkeypatch.setattr(run, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(run, "Runner", lambda jobs, out, at_once: SimpleNamespace(run=lambda: 0))
    flags = ["classic", "--tasks=cartpole", "--algs=ppo2", "--seeds=0-1", f"--out={tmp_path / 'logs'}"]
    for (job, _), episodes in zip(run.jobs_of(run.parsed(flags)), ("", "10.0,10,1.0\n"), strict=True):
        folder = tmp_path / "logs" / job.name
        folder.mkdir(parents=True)
        (folder / "monitor.csv").write_text(f"#{{}}\nr,l,t\n{episodes}")
        code = {**run.codes_of([job])[job.name], "dirty": False}
        (folder / "result.json").write_text(json.dumps({"job": job.key, "code": code, "steps": 10, "seconds": 1.0}))
    assert run.main(flags) == 1
    assert "seed0: no episode has finished" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "results").rglob("*.json")] == ["seed1.json"]
    assert run.main(flags) == 1 and "left out" in capsys.readouterr().err, "it is still to be told"


def test_what_a_part_has_to_do_stays_as_others_go_on(tmp_path, monkeypatch, capsys):
    """What is there already moved nothing from one machine's part to another's."""
    monkeypatch.setattr(run, "RESULTS", tmp_path)
    command = ["classic", "--tasks=cartpole", "--algs=ppo2,a2c", "--seeds=0-1", "--shard=1/2", "--plan"]
    assert run.main(command) == 0
    first, second = (line.removeprefix("missing: ") for line in capsys.readouterr().out.splitlines()[1:])
    job, place = next(pair for pair in run.jobs_of(run.parsed(command)) if pair[0].name == first)
    path = run.path_of(place)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"command": job.command, "code": run.codes_of([job])[job.name]["sha256"]}))
    assert run.main(command) == 0
    assert capsys.readouterr().out == f"classic: 1 result of 2 there, 1 to do here\nmissing: {second}\n"


@pytest.mark.parametrize(("flags", "words"), [
    (["--jobs=0"], "--jobs must be at least 1"), (["--jobs=-1"], "--jobs must be at least 1"),
    (["--tasks=cartpole,cartpole"], "--tasks=cartpole,cartpole has cartpole twice"),
    (["--algs=a2c,a2c"], "--algs=a2c,a2c has a2c twice"),
    (["--tasks=cartpole", "--algs=ddpg"], "'ddpg' is no algorithm of classic's cartpole")])
def test_what_cannot_be_meant_of_a_suite(flags, words, capsys):
    assert run.main(["classic", *flags, "--plan"]) == 2 and words in capsys.readouterr().err


def test_a_row_says_which_options_are_others_now():
    task = SUITES["classic"]["cartpole"]
    now = run.options_of(run.job_of(task, "ppo2", 0))
    assert now["normalize_observations"] is True and now["lr"].startswith("linear:") and "seed" not in now

    def row(*facts):
        return tables.other_now([Result("classic", "cartpole", "ppo2", 0, each, {}, None, None) for each in facts],
                                task, "ppo2")

    assert row({}, {"options": now}) == ""
    assert row({"options": now}, {"options": now | {"nsteps": 7, "lr": "1.0"}}) == "; other now: lr, nsteps"


def test_tables_say_of_which_code_a_result_is(monkeypatch):
    """Changes that no commit has are marked in READMEs as on the suites' pages; a tree may have no commit."""
    made = ({"commit": "0123456789", "dirty": True}, {"commit": "0123456789", "dirty": False},
            {"commit": None, "dirty": False})
    monkeypatch.setattr(tables, "all_results", lambda: [
        Result("classic", "cartpole", "ppo2", seed, facts, {"last100": 500.0}, None, None)
        for seed, facts in enumerate(made)])
    assert tables.results("ppo2").splitlines()[-1].endswith("| 0123456, 0123456+, none |")


def test_a_measurement_notes_changes_that_no_commit_has(tmp_path, monkeypatch):
    """Of the package, not of the results that are being measured."""
    monkeypatch.setattr("baselines_lite.__file__", str(tmp_path / "baselines_lite/__init__.py"))

    def git(*arguments):
        subprocess.run(["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e", *arguments], check=True)

    files = [tmp_path / name for name in ("benchmarks/speed.json", "baselines_lite/__init__.py")]
    for path in files:
        path.parent.mkdir()
        path.write_text("")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    clean = torture.commit()
    files[0].write_text("{}")
    assert len(clean) == 40 and torture.commit() == clean
    files[1].write_text("x = 1")
    assert torture.commit() == f"{clean}+changes"


def test_a_row_says_which_packages_were_of_several_versions():
    """Seeds may come from several machines, where MuJoCo's contacts are others."""
    def row(*versions):
        return report.ours({"ppo2": [Result("classic", "cartpole", "ppo2", seed, {
            "commit": "0123456789", "seconds": 1.0, "versions": each}, {}, np.zeros((3, 1)), None)
            for seed, each in enumerate(versions)]}).splitlines()[-1]

    assert row({"numpy": "2.4", "mujoco": "4.0"}, {"numpy": "2.4", "mujoco": "4.0"}, None).endswith("| 0123456 |")
    assert row({"numpy": "2.4", "mujoco": "4.0"}, {"numpy": "2.4", "mujoco": "3.3"}).endswith(
        "| 0123456; of several versions: mujoco |")


def test_a_report_of_nothing_or_of_what_is_damaged(written, tmp_path, capsys):
    assert report.main([f"--results={tmp_path / 'nothing'}"]) == 2 and not (tmp_path / "nothing").exists()
    assert "there are no results in" in capsys.readouterr().err
    path = written / "classic/cartpole/ppo2/seed0.json"
    whole = path.read_text()
    path.write_text("")
    assert report.main([f"--results={written}"]) == 2
    assert f"{str(path)!r} is no result of a run" in capsys.readouterr().err
    path.write_text(whole)
    path.with_suffix(".csv").unlink()
    assert report.main([f"--results={written}"]) == 2
    assert f"{str(path)!r} is no result of a run" in capsys.readouterr().err


@pytest.mark.parametrize("program", [recipes, report, run])
def test_help_says_how_a_program_is_started(program, capsys):
    with pytest.raises(SystemExit):
        program.main(["--help"])
    assert capsys.readouterr().out.startswith(f"usage: python -m {program.__name__} ")
