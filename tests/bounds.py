"""The tests with the oldest, or the newest, release of each dependency that setup.py allows.

    python tests/bounds.py oldest              each at its lower bound
    python tests/bounds.py oldest numpy scipy  these at their lower bounds, the others as new as goes with them
    python tests/bounds.py newest              each as new as goes with the others

Makes a virtual environment of the Python that runs this, in a temporary folder or in --folder, which stays; installs a
copy of this checkout, which is not written into, with all extras but gpu; and runs the tests there. What follows `--`
are pytest's arguments instead of those of `make test`: `-- tests/maths -x`. Exit status: pytest's, or 2 where the
releases do not install together.
"""

import argparse
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
import types
import venv
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parent.parent
MAKE_TEST = ["-n", "2", "--dist", "loadfile", "--max-worker-restart=0"]


def requirements():
    """What setup.py asks for, with all extras but gpu."""
    told = {}
    setuptools = types.SimpleNamespace(setup=told.update, find_packages=lambda **_: [])
    with mock.patch.dict(sys.modules, setuptools=setuptools):
        runpy.run_path(str(ROOT / "setup.py"))
    return told["install_requires"] + told["extras_require"]["all"]


def bounds(requirements):
    """{name: (lower, upper)}, for lower <= release < upper. Raises ValueError where one is missing or they disagree."""
    found = {}
    for text in requirements:
        match = re.fullmatch(r"([\w-]+)(?:\[[\w,-]+\])?>=([\d.]+),<([\d.]+)", text)
        if match is None:
            raise ValueError(f"{text!r} is not name>=lower,<upper")
        name, *pair = match.groups()
        if found.setdefault(name, pair) != pair:
            raise ValueError(f"{name} has the bounds {found[name]} and {pair}")
    return found


def main():
    split = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("end", choices=["oldest", "newest"])
    parser.add_argument("names", nargs="*", metavar="NAME", help="with oldest: these at their lower bounds, not all")
    parser.add_argument("--folder", type=Path, help="where the environment and the copy are made; not deleted")
    options = parser.parse_args(sys.argv[1:split])
    known = bounds(requirements())
    unknown = [name for name in options.names if name not in known or options.end == "newest"]
    if unknown:
        parser.error(f"{', '.join(unknown)}: names are those of setup.py's dependencies, and go with oldest")
    pins = [f"{name}=={known[name][0]}" for name in options.names or known] if options.end == "oldest" else []
    with tempfile.TemporaryDirectory() as temporary:
        python, copy = install((options.folder or Path(temporary)).resolve(), pins)
        if python is None:
            return 2
        table(python, known)
        return subprocess.run([python, "-m", "pytest", *(sys.argv[split + 1:] or MAKE_TEST)], cwd=copy).returncode


def install(folder, pins):
    """A Python with a copy of this checkout and what it needs, None if that does not install; and the copy."""
    python, copy = folder / "venv/bin/python", folder / "copy"
    venv.create(folder / "venv", with_pip=True)
    left_out = shutil.ignore_patterns(".git", ".venv*", ".*_cache", "__pycache__", "*.egg-info", "build", "videos")
    shutil.copytree(ROOT, copy, dirs_exist_ok=True, ignore=lambda where, names: {
        *left_out(where, names), *({"runs"} if Path(where) == ROOT else ())})
    (folder / "pins.txt").write_text("\n".join(pins))
    done = subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
                           "--only-binary=:all:", "--no-binary=rliable",  # which has none, and is Python alone
                           "-c", folder / "pins.txt", "-e", f"{copy}[all]"])
    if done.returncode:
        print(f"error: with Python {sys.version.split()[0]} these do not install together, pip says why: "
              f"{' '.join(pins) or 'the newest'}", file=sys.stderr)
    return None if done.returncode else python, copy


def table(python, known):
    """Prints what was installed of what was allowed."""
    show = "import sys, importlib.metadata as m; print(*map(m.version, sys.argv[1:]))"
    done = subprocess.run([python, "-c", show, *known], check=True, capture_output=True, text=True)
    print(f"{'python':16}{sys.version.split()[0]}")
    for (name, (lower, upper)), version in zip(known.items(), done.stdout.split(), strict=True):
        print(f"{name:16}{version:12}>={lower},<{upper}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
