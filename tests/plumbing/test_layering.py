"""What may import what."""

import ast
import re
import subprocess
import sys

from baselines_lite.registry import ALGORITHMS
from tests.conftest import ROOT

PACKAGE = ROOT / "baselines_lite"
FLOORS = {"system": 0, "networks": 1, "envs": 1, "policies": 2, "sampling": 3, "optim": 4, "experiment": 5}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def modules_of(path):
    """The package's modules that a file imports, at its top or inside a function."""
    for name in imports(path):
        if name.startswith("baselines_lite") and (ROOT / f"{name.replace('.', '/')}.py").exists():
            yield name


def test_rooms_import_from_the_floors_below():
    for path in (PACKAGE / "common").glob("*/*.py"):
        room = path.parent.name
        for name in modules_of(path):
            _, common, *inner = name.split(".")
            assert common == "common" and len(inner) == 2, (path, name)
            assert inner[0] == room or FLOORS[inner[0]] < FLOORS[room], (path, name)


def test_what_is_done_with_runs_stands_above_common():
    below = ("baselines_lite.common.", "baselines_lite.runs.", "baselines_lite.command_line", "baselines_lite.registry")
    for path in (PACKAGE / "runs").glob("*.py"):
        assert all(name.startswith(below) for name in modules_of(path)), path


def test_no_module_imports_itself_by_way_of_others():
    found = {".".join(path.relative_to(ROOT).with_suffix("").parts): set(modules_of(path))
             for path in PACKAGE.rglob("*.py")}
    while leaves := [name for name, used in found.items() if not used & found.keys()]:
        for name in leaves:
            del found[name]
    assert not found


def test_rooms_and_files_can_be_surveyed():
    """About a dozen files in a room, about 400 lines in a file."""
    assert {path.name for path in (PACKAGE / "common").iterdir() if path.is_dir()} - {"__pycache__"} == FLOORS.keys()
    for room in FLOORS:
        assert len([p for p in (PACKAGE / "common" / room).glob("*.py") if p.name != "__init__.py"]) <= 12, room
    for path in PACKAGE.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 420, path


def test_an_update_is_understood_from_the_files_that_the_readme_lists():
    text = (ROOT / "README.md").read_text()
    files = re.findall(r"`([\w/]+\.py)`", text[text.index("<!-- route -->") : text.index("<!-- end -->")])
    assert len(files) <= 13
    assert sum(len((PACKAGE / name).read_text().splitlines()) for name in files) <= 1400


def test_private_api_of_others_stands_in_one_file_each():
    places = {r"\bcall_flat\b": ["common/system/compiled.py"], r"import _\w": ["common/envs/workers.py"],
              r"tensorflow\.python": []}
    for pattern, expected in places.items():
        found = [str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py")
                 if re.search(pattern, path.read_text().replace("import __version__", ""))]
        assert found == expected, pattern


def test_common_imports_no_algorithm():
    for path in (PACKAGE / "common").rglob("*.py"):
        for name in imports(path):
            assert not any(name.startswith(f"baselines_lite.{alg}") for alg in ALGORITHMS), (path, name)
            assert name != "baselines_lite.registry", path


def test_algorithms_import_no_other_algorithm_and_their_own_files_relatively():
    """So that a copied folder is a fork. `common` is imported absolutely, wherever the copy lies."""
    for alg in ALGORITHMS:
        for path in (PACKAGE / alg).rglob("*.py"):
            for name in imports(path):
                assert not name.startswith(("baselines_lite", "..")) or name.startswith("baselines_lite.common"), path


def test_only_mpi_py_imports_mpi4py():
    for path in PACKAGE.rglob("*.py"):
        if path != PACKAGE / "common/system/mpi.py":
            assert not any(name.split(".")[0] == "mpi4py" for name in imports(path)), path


def test_what_another_file_uses_carries_no_underscore():
    """What our algorithms and policies need of `common`, those of one's own need too."""
    foreign = {"_async_worker", "_max_episode_steps", "_current_frames", "_exit", "_exit_function", "_replace"}
    for path in PACKAGE.rglob("*.py"):
        made, used = set(foreign), set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                made.add(node.name)
            elif isinstance(node, ast.Attribute | ast.Name):
                name = node.attr if isinstance(node, ast.Attribute) else node.id
                (made if isinstance(node.ctx, ast.Store) else used).add(name)
            elif isinstance(node, ast.ImportFrom):
                used |= {alias.name for alias in node.names}
        assert not {name for name in used - made if name.startswith("_") and not name.startswith("__")}, path


def test_importing_the_package_loads_neither_tensorflow_nor_mpi():
    code = ("import sys, baselines_lite; from baselines_lite import ppo2; "
            "assert not {'tensorflow', 'mpi4py', 'gymnasium'} & set(sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_tensorflow_is_quiet_wherever_it_is_imported_first():
    code = ("import importlib.util, baselines_lite; importlib.util.find_spec('tensorflow'); "
            "from baselines_lite.common.experiment.report import AfterUpdate")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_algorithms_are_attributes_of_the_package():
    code = ("import sys, baselines_lite; assert baselines_lite.ppo2.PRESETS and 'acer' in dir(baselines_lite); "
            "assert not hasattr(baselines_lite, 'ppo3'); assert 'tensorflow' not in sys.modules")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_pickle_and_no_eval():
    for path in PACKAGE.rglob("*.py"):
        assert not {"pickle", "cloudpickle"} & set(imports(path)), path
        calls = [n.func.id for n in ast.walk(ast.parse(path.read_text()))
                 if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
        assert not {"eval", "exec"} & set(calls), path


def test_every_algorithm_has_its_parts():
    for alg in ALGORITHMS:
        assert {"__init__.py", "config.py", f"{alg}.py", "README.md"} <= {p.name for p in (PACKAGE / alg).iterdir()}
        text = [line for line in (PACKAGE / alg / "README.md").read_text().splitlines() if not line.startswith("|")]
        assert len(text) <= 40
