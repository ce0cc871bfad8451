"""What may import what."""

import ast
import subprocess
import sys

from baselines_lite.registry import ALGORITHMS
from tests.conftest import ROOT

PACKAGE = ROOT / "baselines_lite"


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def test_common_imports_no_algorithm():
    for path in (PACKAGE / "common").glob("*.py"):
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
        if path != PACKAGE / "common/mpi.py":
            assert not any(name.split(".")[0] == "mpi4py" for name in imports(path)), path


def test_importing_the_package_loads_neither_tensorflow_nor_mpi():
    code = ("import sys, baselines_lite; from baselines_lite import ppo2; "
            "assert not {'tensorflow', 'mpi4py', 'gymnasium'} & set(sys.modules)")
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
