"""The commands in the docs do what they are there for, and their Python names what there is.

One that trains is resolved, with as many ranks as it starts; one for a model file opens it, and plays nothing; one for
runs finds some; a benchmark's flags are read. They are found by their programs' names; only LEFT_OUT is left out.
"""

import argparse
import ast
import importlib.util
import re
import runpy
import shlex
import shutil
import sys

import pytest
import tensorflow as tf

from baselines_lite import registry
from baselines_lite.command_line import checked, main
from baselines_lite.runs.jobs import Job
from baselines_lite.runs.runner import write_json
from benchmarks import run
from tests.conftest import ROOT

PAGES = [path for pattern in ("README.md", "CONTRIBUTING.md", "docs/**/*.md", "baselines_lite/*/README.md",
                              "benchmarks/README.md") for path in sorted(ROOT.glob(pattern))]
SOURCES = [path for pattern in ("examples/*.sbatch", "examples/**/*.py", "baselines_lite/**/*.py", "benchmarks/*.py")
           for path in sorted(ROOT.glob(pattern))]
PROGRAM = re.compile(r"(?:\bpython (run\.py|-m [\w.]+|[\w/]+\.py)|(?<!\S)baselines-lite)(?= |$)")
OURS = ("run.py", "-m baselines_lite.run", None)  # None: the installed command
LEFT_OUT = {
    "python -m baselines.run": "the original's",
    "mpirun -np 4 python examples/mpi_script.py cartpole.safetensors": "test_examples.py runs it",
    "python benchmarks/tables.py --check": "test_readme.py runs it",
}
# What stands for something else in a command, and what it may stand for.
INSTEAD = {r"\bSUITE\b": "checks", r"\bTASK\b": "identity-discrete,identity-box", r"\bNAME\b": "ppo2-pong",
           r"--algs=\.\.\.": "--algs=ppo2", r"run\.py \.\.\.": "run.py --env=Humanoid-v5",
           r"--seed=S\b": "--seed=0", r"\$SLURM_ARRAY_TASK_ID": "1"}


def code_in(path):
    """The code in a page, its blocks by lines; in a module's docstring, where it is indented; a script's lines."""
    text = path.read_text().replace("\\\n", " ")
    if path.suffix == ".py":
        return re.findall(r"^    .*", ast.get_docstring(ast.parse(text), clean=False) or "", re.MULTILINE)
    if path.suffix != ".md":
        return text.splitlines()
    fence = re.compile(r"^```.*?\n(.*?)^```", re.DOTALL | re.MULTILINE)
    spans = re.findall(r"`([^`]+)`", fence.sub("", text))
    return [*"".join(fence.findall(text)).splitlines(), *(" ".join(span.split()) for span in spans)]


# Every command once, without its comment.
FOUND = dict.fromkeys(command for path in PAGES + SOURCES for line in code_in(path)
                      if PROGRAM.search(command := line.partition(" #")[0].strip()))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with all that the commands name: a run, its model, sweeps, modules of one's own."""
    folder = tmp_path_factory.mktemp("place")
    log = folder / "runs/hopper"
    tf.config.run_functions_eagerly(True)
    assert main(["--env=CartPole-v1", "--num_env=1", "--nsteps=64", "--nminibatches=1", "--noptepochs=1",
                 "--num_timesteps=128", f"--log_path={log}"]) == 0
    tf.config.run_functions_eagerly(False)
    for name in ("model", "hopper"):
        shutil.copy(log / "model.safetensors", folder / f"{name}.safetensors")
    job = Job("ppo2", "CartPole-v1")
    for name in ("results-a", "results-b", "shard1", "shard2"):
        shutil.copytree(log, folder / name / job.name)
        write_json(folder / name / job.name / "result.json", {
            "job": job.key, "code": {"sha256": "0"}, "score": 1.0, "evaluation": None, "steps_per_second": None})
    (folder / "my_module.py").write_text(
        "import gymnasium as gym\nfrom examples.corridor import Corridor as MyEnv\n"
        "from examples.gated import gated as my_network\ngym.register('MyEnv-v0', MyEnv, max_episode_steps=100)\n")
    shutil.copytree(ROOT / "baselines_lite/ppo2", folder / "my_lab/my_ppo")
    shutil.copytree(ROOT / "examples/reinforce", folder / "myalg")
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] in ("my_module", "my_lab", "myalg")]:
        del sys.modules[name]


class Parsed(Exception):
    """A program has read its flags."""


def of_another_program(program, arguments, monkeypatch):
    """A benchmark says what it would do, or reads its flags and ends; what is named alone is there."""
    module = program.removeprefix("-m ")
    if not arguments:
        assert importlib.util.find_spec(module) if module != program else (ROOT / program).is_file()
        return
    if module == "benchmarks.run":
        assert run.main([*arguments, "--plan"]) == 0
        return
    parse = argparse.ArgumentParser.parse_args

    def parse_args(self, *given):
        parse(self, *given)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
    monkeypatch.setattr(sys, "argv", [program, *arguments])
    with pytest.raises(Parsed):
        if module != program:
            runpy.run_module(module, run_name="__main__")
        else:
            runpy.run_path(str(ROOT / program), run_name="__main__")


@pytest.mark.parametrize("command", [command for command in FOUND if command not in LEFT_OUT])
def test_it_works(command, place, monkeypatch, capfd):
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(place)
    for name, meant in INSTEAD.items():
        command = re.sub(name, meant, command)
    program = PROGRAM.search(command)
    arguments = shlex.split(command[program.end() :])
    if program[1] not in OURS:
        of_another_program(program[1], arguments, monkeypatch)
        return
    ranks = re.search(r"-np (\d+)", command[: program.start()])
    runs_here = {"--dry_run", "--resume=runs/hopper"} & set(arguments)  # as one process
    monkeypatch.setattr("baselines_lite.command_line.launched_size",
                        lambda: int(ranks[1]) if ranks and not runs_here else 1)
    if not runs_here:
        monkeypatch.setattr("baselines_lite.command_line.train",
                            lambda options, command, flags: checked(options, command) and 0)
    for name in ("watch", "evaluate"):
        monkeypatch.setattr(f"baselines_lite.command_line.{name}", lambda *_: None)
    if arguments in ([], ["stubs"], ["doctor"], ["plot"]):  # a name; what its own tests run
        arguments.append("--help")
    elif arguments[0] == "sweep" and "--merge" not in " ".join(arguments):
        arguments.append("--dry_run")
    assert main(arguments) == 0, capfd.readouterr().err


def test_the_run_of_the_readme_goes_on_with_as_many_ranks():
    """Another number is refused; the run that is gone on with above is a small one, of one rank."""
    lines = code_in(ROOT / "README.md")
    begun, gone_on = ({line.partition("python")[0] for line in lines if f"{flag}=runs/hopper" in line.split()}
                      for flag in ("--log_path", "--resume"))
    assert begun == gone_on == {"mpirun -np 8 "}


def test_what_is_left_out_or_stands_for_something_is_there():
    assert LEFT_OUT.keys() <= FOUND.keys()
    assert all(any(re.search(name, command) for command in FOUND) for name in INSTEAD)


BLOCKS = [(path.name, block) for path in PAGES
          for block in re.findall(r"^```python\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)
          if not block.startswith("--8<--")]  # a whole file, which is tried elsewhere


@pytest.mark.parametrize(("page", "block"), BLOCKS)
def test_python_names_what_there_is(page, block):
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("baselines_lite"):
            exec(compile(ast.Module([node], []), page, "exec"), {})
        elif isinstance(node, ast.Call) and ast.unparse(node.func).removesuffix(".learn") in registry.ALGORITHMS:
            stub = ast.parse((ROOT / "baselines_lite" / node.func.value.id / "__init__.pyi").read_text())
            (learn,) = (each.args for each in stub.body if isinstance(each, ast.FunctionDef))
            assert {keyword.arg for keyword in node.keywords} <= {each.arg for each in learn.args + learn.kwonlyargs}
