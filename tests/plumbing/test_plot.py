"""Reading logs of runs, and drawing curves of them."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import scipy.stats

from baselines_lite.common.experiment import plotting
from baselines_lite.common.experiment.config import RunOptions
from baselines_lite.common.system.errors import UserError
from baselines_lite.runs.curves import ASIDE, lines
from baselines_lite.runs.logs import find_runs, read_run
from tests.conftest import ROOT


def write_monitor(path, episodes, t_start=0.0, env="CartPole-v1", columns=(), header="#{}\n", end=""):
    """A monitor file of (r, l, t) rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [",".join(map(str, row)) for row in episodes]
    path.write_text(header.format(json.dumps({"t_start": t_start, "env_id": env}))
                    + "\n".join([",".join(["r", "l", "t", *columns]), *rows, end]))


def write_run(folder, alg="ppo2", env="CartPole-v1", seed=0, episodes=30, reward=1.0, length=10, **config):
    """A log of ours, of episodes of that length and one second."""
    write_monitor(folder / "monitor.csv", [(reward * i, length, float(i)) for i in range(episodes)], env=env)
    (folder / "config.json").write_text(json.dumps(
        {"algorithm": alg, "env": env, "run": {"seed": seed, "log_path": str(folder)}, "config": config, "ranks": 2}))
    return folder


def test_our_log_has_the_steps_that_progress_counts(tmp_path):
    folder = write_run(tmp_path / "run", episodes=6, seed=3, lr=1e-3)
    (folder / "progress.csv").write_text("total_timesteps,nupdates,eprewmean,episodes\n100,1,,0\n200,2,1,2\n300,3,1,2\n"
                                         "400,4,1,5\n500,5,")
    (folder / "evaluations.csv").write_text("total_timesteps,mean,std_error,episodes\n200,1.5,0.25,20\n400,2,,1\n600,3")
    run = read_run(folder)
    assert (run.algorithm, run.env, run.seed, run.ranks) == ("ppo2", "CartPole-v1", 3, 2)
    np.testing.assert_allclose(run.steps, [150, 200, 300 + 100 / 3, 300 + 200 / 3, 400])  # the sixth: no row has it yet
    np.testing.assert_array_equal(run.returns, range(5))
    np.testing.assert_allclose(run.hours * 3600, range(5))
    np.testing.assert_array_equal(run.evaluations, [[200, 1.5, 0.25, 20], [400, 2, np.nan, 1]])
    assert run.config["config"] == {"lr": 1e-3} and not run.averaged


def test_damaged_rows_are_passed_over(tmp_path):
    write_monitor(tmp_path / "monitor.csv", [(1.0, 10, 1.0), ("nan", 10, 2.0), ("", "", ""), (2.0,), ("x", 1, 1),
                                             (3.0, 10, 4.0)], end="4.0,10,5")
    (tmp_path / "config.json").write_text('{"algorithm": "pp')
    run = read_run(tmp_path)
    np.testing.assert_array_equal([run.steps, run.returns], [[10, 20], [1, 3]])
    assert run.config == {}


def test_files_of_the_originals_ranks_are_merged_in_the_order_of_time(tmp_path):
    """Each has a clock of its own. The header's form is that of bench/monitor.py's ResultsWriter."""
    files = {name: tmp_path / f"ppo2-4/{name}.0.monitor.csv" for name in (0, 1)}
    write_monitor(files[0], [(1.0, 10, 5.0), (3.0, 30, 20.0)], 1000.0, env=None, header="# {} \n")
    write_monitor(files[1], [(2.0, 20, 5.0)], 1010.0, header="# {} \n")
    run, = find_runs([tmp_path])
    assert (run.algorithm, run.env, run.seed, run.config) == ("ppo2", "CartPole-v1", 4, {})
    np.testing.assert_array_equal(run.returns, [1, 2, 3])
    np.testing.assert_array_equal(run.steps, [10, 30, 60])
    np.testing.assert_allclose(run.hours * 3600, [5, 15, 20])


def test_files_of_stable_baselines3(tmp_path):
    """As its common/monitor.py writes them: perhaps with columns of info, csv's line ends; named as by its zoo."""
    folder = tmp_path / "ppo" / "CartPole-v1_2"
    write_monitor(folder / "0.monitor.csv", [(11.0, 11, 0.78, True), (47.0, 47, 0.86, False)], 1614619328.331583,
                  columns=("is_success",))
    write_monitor(folder / "1.monitor.csv", [(9.0, 9, 0.8, True)], 1614619328.331583, columns=("is_success",))
    path = folder / "1.monitor.csv"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    run, = find_runs([tmp_path])
    assert (run.algorithm, run.env, run.seed) == ("ppo", "CartPole-v1", 2)
    np.testing.assert_array_equal([run.steps, run.returns], [[11, 20, 67], [11, 9, 47]])
    assert len(find_runs([path])[0].returns) == 1  # a file is a run too


@pytest.mark.parametrize(("header", "row", "clock"), [
    ("total_timesteps,nupdates,eprewmean,time_elapsed", "100,1,7.5,3600", 1.0),
    ("eplenmean,eprewmean,fps,misc/time_elapsed,misc/total_timesteps", "9,7.5,50,3600,100", 1.0),
    ("EpLenMean,EpRewMean,TimeElapsed,TimestepsSoFar", "9,7.5,3600,100", 1.0),
    ("% time spent exploring,episodes,mean 100 episode reward,steps", "9,10,7.5,100", np.nan),
    ("rollout/return,rollout/return_history,total/duration,total/steps", "9,7.5,3600,100", 1.0),
    ("rollout/ep_rew_mean,time/time_elapsed,time/total_timesteps", "7.5,3600,100", 1.0),
])
def test_a_run_without_monitor_files_has_the_means_of_progress(tmp_path, header, row, clock):
    (tmp_path / "progress.csv").write_text(f"{header}\n{row}\n{row.replace('7.5', '9.5')}\n")
    run = read_run(tmp_path)
    np.testing.assert_array_equal([run.steps[0], run.returns[0], run.hours[0]], [100, 7.5, clock])
    assert run.averaged
    np.testing.assert_array_equal(lines([run], "steps", 100)[0][1], [7.5, 9.5])  # they are not smoothed once more


def test_runs_are_found_at_any_depth_each_once(tmp_path):
    folders = [write_run(tmp_path / name) for name in ("b", "a/1", "a/previous-1", "a/1/videos")]
    assert [run.folder for run in find_runs([tmp_path, folders[0]])] == [folders[1], folders[0]]
    assert [run.folder for run in find_runs([folders[2]])] == [folders[2]]
    (tmp_path / "nothing").mkdir()
    for path, words in {"nothing": "no log of a run", "nowhere": "no folder or file"}.items():
        with pytest.raises(UserError, match=words):
            find_runs([tmp_path / path])


def test_a_run_counts_once_however_it_is_named(tmp_path):
    folder = write_run(tmp_path / "run")
    (folder / "progress.csv").write_text("total_timesteps,eprewmean,time_elapsed\n100,1,1\n")
    files = [folder / "monitor.csv", folder / "progress.csv"]
    for named in ([folder, *files], [*files, folder], [tmp_path, *files], files):
        run, = find_runs(named)
        assert len(run.returns) == 30
    assert find_runs(files[1:])[0].averaged


def test_links_to_folders_are_followed_and_lead_in_no_circle(tmp_path):
    write_run(tmp_path / "scratch/a")
    write_run(tmp_path / "runs/b")
    for link, place in (("a", "scratch/a"), ("back", "runs")):
        (tmp_path / "runs" / link).symlink_to(tmp_path / place, target_is_directory=True)
    assert [run.folder.name for run in find_runs([tmp_path / "runs"])] == ["a", "b"]


@pytest.mark.parametrize("config", [{"config": "foo"}, {"algorithm": None}, {"network_options": [1]}, {"run": 3}, 5])
def test_another_programs_config_is_none_of_ours(config, tmp_path):
    write_monitor(tmp_path / "monitor.csv", [(1.0, 10, 1.0)])
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read_run(tmp_path).config == {}


def test_what_is_no_log_is_said_to_be_none(tmp_path):
    folder = write_run(tmp_path / "run")
    (tmp_path / "a.monitor.csv").write_bytes(bytes(range(256)) * 3)
    (tmp_path / "b.monitor.csv").write_text("1,2,3\n4,5,6\n")
    (tmp_path / "new.monitor.csv").write_text("#{}\n")
    for path in (folder / "config.json", tmp_path / "a.monitor.csv", tmp_path / "b.monitor.csv"):
        with pytest.raises(UserError, match=f"{path.name}' is no log of a run"):
            read_run(path)
    assert not len(read_run(tmp_path / "new.monitor.csv").returns)  # it has only begun
    text = (folder / "monitor.csv").read_text()
    (folder / "monitor.csv").write_text(text.partition("\n")[2], encoding="utf-8-sig")
    assert len(read_run(folder).returns) == 30


def test_means_and_bands(monkeypatch):
    monkeypatch.setattr(plotting, "POINTS", 3)
    runs = [(np.array([0.0, 10.0]), np.array([0.0, 10.0]) + c) for c in (1.0, 2.0, 4.0, 8.0)]
    assert plotting.average(runs, "ci").low is None
    np.testing.assert_allclose([y[0] for _, y in plotting.single_lines(runs, "ci")], [1, 2, 4, 8])
    runs.append((np.array([2.0, 6.0]), np.array([2.0, 6.0])))
    mean = plotting.average(runs, "ci")
    np.testing.assert_allclose([mean.x, mean.mean], [[2, 4, 6], [5, 7, 9]])  # where all five are
    values = np.array([3.0, 4, 6, 10, 2])
    low, high = scipy.stats.t.interval(0.95, 4, values.mean(), scipy.stats.sem(values))
    np.testing.assert_allclose([mean.low[0], mean.high[0]], [low, high])
    assert plotting.single_lines(runs, "ci") == []
    mean = plotting.average(runs, "std")
    np.testing.assert_allclose(mean.high - mean.mean, values.std(ddof=1))
    mean = plotting.average(runs, "minmax")
    np.testing.assert_allclose([mean.low[0], mean.high[0]], [2, 10])
    assert plotting.average(runs, "none").low is None and plotting.average(runs[:1], "std").low is None
    assert len(plotting.average([*runs, (np.array([20.0, 30.0]), np.zeros(2))], "ci").x) == 0  # no x is in all


def test_a_label_looks_the_same_wherever_it_is_and_unlike_all_others():
    names = [f"alg{i:02}" for i in range(20)]
    look = plotting.looks(reversed(names))
    assert look == plotting.looks(names * 2) and len(set(look.values())) == 20


def embedded(page):
    """The data of a page of curves."""
    return json.loads(page.split('id="data">')[1].split("</script>")[0])


def test_the_picture_and_the_page(main, tmp_path):
    for seed in range(5):
        write_run(tmp_path / f"my runs/ppo2 {seed}", seed=seed, reward=seed)
    write_run(tmp_path / "my runs/a2c", alg="a2c", episodes=2000)
    write_run(tmp_path / "my runs/other", alg="a2c", env="</script>-v0")
    done = main("plot", "my runs", "--out=new/a b.png", "--html=page.html", "--window=2", "--x", "hours")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"7 runs in 2 environments: {os.path.join('new', 'a b.png')}, page.html\n"
    assert (tmp_path / "new/a b.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "page.html").read_text()
    assert "@" not in page.split('id="data">')[0] and "Plotly.react" in page and "src=" not in page.split("<script>")[0]
    data = embedded(page)
    assert (data["x"], data["window"]) == ("hours", 2)
    a2c, ppo2 = [curve for curve in data["curves"] if curve["env"] == "CartPole-v1"]
    assert {curve["color"] for curve in data["curves"] if curve["label"] == "a2c"} == {a2c["color"]} != {ppo2["color"]}
    assert (ppo2["label"], ppo2["runs"], len(ppo2["steps"]["x"])) == ("ppo2", 5, plotting.POINTS)
    assert ppo2["steps"]["x"][-1] == 300 and ppo2["hours"]["x"][-1] == pytest.approx(29 / 3600, rel=1e-5)
    assert ppo2["steps"]["mean"][-1] == 28.5 * 2  # the mean of the seeds, and of the last two episodes
    assert ppo2["steps"]["low"][-1] < 57 < ppo2["steps"]["high"][-1] and a2c["steps"]["low"] is False
    assert ppo2["hours"]["episodes"][4]["y"] == [4.0 * i for i in range(30)]
    assert len(a2c["steps"]["episodes"][0]["y"]) == 1000 and a2c["steps"]["episodes"][0]["y"][-1] == 1999


def test_without_plotly_there_is_the_picture_and_a_sentence(main, tmp_path, missing):
    write_run(tmp_path / "run")
    missing("plotly")
    assert main("plot", "run").returncode == 0 and (tmp_path / "curves.png").exists()
    done = main("plot", "run", "--html=page.html")
    assert (done.returncode, done.stderr) == (2, "error: an HTML page of curves needs a package: pip install "
                                                 "'baselines-lite[plot]'\n")


def test_runs_that_differ_are_told_and_can_be_drawn_apart(main, tmp_path):
    write_run(tmp_path / "a", seed=0, lr=1e-3, gamma=0.9)
    write_run(tmp_path / "b", seed=1, lr=1e-4, gamma=0.9, episodes=10)
    write_run(tmp_path / "e", alg="vpg", episodes=20, length=100_000)
    write_run(tmp_path / "e2", alg="vpg", seed=1, episodes=10, length=100_000)
    assert "ends at 1,000,000 steps of 2,000,000: there ends 'e2'" in main("plot", "e", "e2").stdout
    write_monitor(tmp_path / "c/monitor.csv", [])
    done = main("plot", "a", "b", "c", "--html=page.html")
    assert done.stdout.splitlines()[:3] == [
        "left out, because no episode has finished yet: 'c'",
        "ppo2 on CartPole-v1 ends at 100 steps of 300: there ends 'b'",
        "runs of one curve differ in lr: --by=alg,env,lr draws them apart"]
    assert main("plot", "a", "b", "--by=alg,env,lr", "--html=page.html").stdout.count("\n") == 1
    labels = [curve["label"] for curve in embedded((tmp_path / "page.html").read_text())["curves"]]
    assert labels == ["ppo2 lr=0.001", "ppo2 lr=0.0001"]
    write_run(tmp_path / "d", seed=0, lr=1e-3, gamma=0.9)
    assert main("plot", "a", "d", "--out=f").stdout.splitlines() == [
        "ppo2 on CartPole-v1 has several runs of one seed, which are no independent samples",
        "2 runs in 1 environment: f.png"]
    assert (tmp_path / "f.png").exists()
    assert RunOptions.__dataclass_fields__.keys() >= ASIDE


@pytest.mark.parametrize(("flags", "words"), [
    ((), "which runs? Give their folders"),
    (("nowhere",), "there is no folder or file 'nowhere'"),
    (("empty",), "there is no log of a run in 'empty'"),
    (("begun",), "no episode has finished yet in 'begun'"),
    (("run", "--wnidow=3"), "unknown flag '--wnidow'; did you mean --window?"),
    (("run", "--window=0"), "window must be at least 1"),
    (("run", "--band=sd"), "unknown band 'sd'; did you mean std?"),
    (("run", "--by=alg,gama"), "unknown option 'gama'; did you mean gamma?"),
    (("run", "--html"), "the flag --html needs a value"),
    (("run", "-o"), "unexpected argument '-o': write --NAME=VALUE"),
    (("run", "--out=run/monitor.csv/a.png"), "cannot write 'run/monitor.csv/a.png': File exists: 'run/monitor.csv'"),
    (("run", "--out=a.jpag"), "unknown format of a picture 'jpag'; did you mean jpg"),
    (("deepq", "--x=hours"), "the log in 'deepq' does not say when its episodes ended: only --x=steps"),
])
def test_bad_input_is_told_in_a_sentence(main, tmp_path, flags, words):
    (tmp_path / "empty").mkdir()
    write_run(tmp_path / "run", gamma=0.9)
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun/monitor.csv").write_text('#{"t_sta')
    (tmp_path / "deepq").mkdir()
    (tmp_path / "deepq/progress.csv").write_text("mean 100 episode reward,steps\n1,2\n")
    done = main("plot", *flags)
    assert done.returncode == 2 and done.stderr.startswith(f"error: {words}"), done.stderr
    assert done.stderr.count("\n") == 1 and not (tmp_path / "curves.png").exists()


def test_a_folder_is_no_picture(main, tmp_path):
    write_run(tmp_path / "run")
    for out in ("pictures/", "run"):
        done = main("plot", "run", f"--out={out}")
        assert done.returncode == 2 and f"out={out} is a folder; name a picture in it" in done.stderr


def test_plotting_by_itself_loads_little(tmp_path):
    """`python -m baselines_lite.plot`, from another folder."""
    write_run(tmp_path / "run")
    code = ("import runpy, sys; sys.argv = ['plot', '../run']\n"
            "try: runpy.run_module('baselines_lite.plot', run_name='__main__')\n"
            "except SystemExit as end: assert end.code == 0\n"
            "assert not {'tensorflow', 'mpi4py', 'gymnasium', 'scipy.stats', 'plotly'} & set(sys.modules)")
    (tmp_path / "here").mkdir()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path / "here",
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    assert done.stdout == "1 run in 1 environment: curves.png\n" and (tmp_path / "here/curves.png").exists()
