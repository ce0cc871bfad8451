"""Checkpoints from strangers: each is what it says, or refused in a sentence; none runs anything."""

import copy
import json
import shutil
import sys
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

from baselines_lite import UserError, registry
from baselines_lite.common.envs.episode_stats import EpisodeWindow
from baselines_lite.common.experiment import array_file, checkpoints
from baselines_lite.common.experiment.experiment import Experiment
from baselines_lite.common.experiment.resume import asked, check_same, with_given
from baselines_lite.common.system.mpi import Comm
from tests import MUTANTS
from tests.plumbing.test_model_files import (
    HOSTILE,
    Memory,
    mutate_bytes,
    mutate_header,
    mutate_metadata,
    mutate_numbers,
    places,
    truncate,
)
from tests.plumbing.test_table import SHORT


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Finished runs: the folder of the log, and the objects that belong to its checkpoint, by name of the algorithm."""
    return trained(tmp_path_factory.mktemp("runs"))


def trained(folder):
    import tensorflow as tf

    found, leave = {}, Experiment._finish
    for name in ("ppo2", "deepq", "acktr"):
        def finish(self, name=name):
            found[name] = folder / name, self.continuation.kept
            leave(self)

        tf.config.run_functions_eagerly(True)
        with patch.object(Experiment, "_finish", finish):
            registry.find(name).learn("CartPole-v1", 64, **SHORT[name], log_path=folder / name, threads=1)
        tf.config.run_functions_eagerly(False)
    return found


def opened(folder, kept):
    """Restores a run's objects from its checkpoints, as one that goes on does; the sentence where that is refused."""
    try:
        options = {"resume": str(folder)}
        facts = asked(options)[1]
        check_same(facts["settings"], facts["settings"], False)
        with_given(options, facts)
        found = next(checkpoints.Checkpoints(folder / "checkpoints", Comm(), 3).found(), None)
        if found is None:
            return "none is whole"
        for name, thing in kept.items():
            found.restore(name, thing)
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 900, error
        return str(error)
    return ""


def mutate_manifest(rng, manifest):
    """Another value, or none, at one or two places."""
    for _ in range(rng.integers(1, 3)):
        paths = list(places(manifest))
        if not paths:
            break
        *way, last = paths[rng.integers(len(paths))]
        place = manifest
        for key in way:
            place = place[key]
        if rng.integers(4) == 0:
            del place[last]
        else:
            place[last] = copy.deepcopy(HOSTILE[rng.integers(len(HOSTILE))])
    return manifest


def fuzz(runs, folder, count, seed=0):
    """So many mutants of the runs' files; how often each kind was taken or refused."""
    rng, results = np.random.default_rng(seed), Counter()
    for name, (source, _) in runs.items():
        shutil.copytree(source, folder / name)
    for i in range(count):
        name = list(runs)[i % len(runs)]
        log, kept = folder / name, runs[name][1]
        place, = (log / "checkpoints").glob("[0-9]*")
        path = place / "manifest.json"
        text = path.read_text()
        manifest, files = json.loads(text), {}
        if i // 3 % 4 == 0:
            what, manifest = "manifest", mutate_manifest(rng, manifest)
            if i // 12 % 4 == 0:
                path.write_bytes(mutate_bytes_of(rng, text.encode()))
                manifest = None
        else:
            what = (mutate_metadata, mutate_header, mutate_bytes, truncate, mutate_numbers)[i // 12 % 5]
            rings = [file for files in manifest["ranks"][0]["rings"].values() for file in files]
            seal, target = manifest["ranks"][0]["seal"], place / "rank-0000.safetensors"
            if rings and rng.random() < 0.3:
                seal = rings[rng.integers(len(rings))]
                target = log / "checkpoints" / seal["name"]
            files[target] = target.read_bytes()
            target.write_bytes(what(rng, files[target]))
            seal |= array_file.seal(target)
            what = what.__name__
        if manifest is not None:
            path.write_text(json.dumps(manifest))
        with Memory() if i % 100 == 0 else nullcontext() as memory:
            results[what, "refused" if opened(log, kept) else "taken"] += 1
        size = sum(file.stat().st_size for file in log.rglob("*") if file.is_file())
        assert memory is None or memory.grown <= 2 * size + 2**26
        path.write_text(text)
        for target, data in files.items():
            target.write_bytes(data)
    for name, (_, kept) in trained(folder / "new").items():  # objects that no refused file has changed in part
        assert opened(folder / name, kept) == ""
    return results


def mutate_bytes_of(rng, data):
    """Some bits flipped, or the end cut off."""
    changed = bytearray(data if rng.random() < 0.7 else data[: rng.integers(len(data))])
    for place in rng.integers(0, max(len(changed), 1), size=3):
        if changed:
            changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def test_a_fuzz(runs, tmp_path, monkeypatch, capfd):
    (tmp_path / "canary.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    modules = set(sys.modules)
    results = fuzz(runs, tmp_path, MUTANTS or 1000)
    assert not set(sys.modules) - modules
    for what in ("manifest", "mutate_metadata", "mutate_header", "mutate_bytes", "truncate"):
        assert results[what, "refused"] > 10, results
    assert results["manifest", "taken"] > 10 and results["mutate_numbers", "taken"] > 10, results
    capfd.readouterr()


def test_a_manifest_that_lacks_something(runs, tmp_path, capfd):
    """Each part in turn: it is taken without it, or refused in a sentence."""
    source, kept = runs["ppo2"]
    shutil.copytree(source, tmp_path / "log")
    path, = (tmp_path / "log/checkpoints").glob("*/manifest.json")
    text = path.read_text()
    for way in ([], ["settings"], ["given"], ["logs"], ["ranks", 0]):
        for name in list(part_of(json.loads(text), way)):
            manifest = json.loads(text)
            del part_of(manifest, way)[name]
            path.write_text(json.dumps(manifest))
            opened(tmp_path / "log", kept)
    path.write_text(text)
    assert opened(tmp_path / "log", kept) == ""
    capfd.readouterr()


def part_of(manifest, way):
    for key in way:
        manifest = manifest[key]
    return manifest


def test_files_stay_in_the_folder(runs, tmp_path):
    source, kept = runs["deepq"]
    shutil.copytree(source, tmp_path / "log")
    path, = (tmp_path / "log/checkpoints").glob("*/manifest.json")
    manifest = json.loads(path.read_text())
    file = manifest["ranks"][0]["rings"]["buffer"][0]
    secret = Path(shutil.copy(tmp_path / "log/checkpoints" / file["name"], tmp_path / "secret.safetensors"))
    for name in (str(secret), "../../secret.safetensors", "rings/../../../secret.safetensors"):
        file["name"] = name
        path.write_text(json.dumps(manifest))
        assert opened(tmp_path / "log", kept) == "none is whole"


def test_what_was_refused_leaves_a_window_that_takes_the_whole_file():
    window, good = EpisodeWindow(), {"last": [[1.0, 2, 0.5, 3]], "count": 1}
    for bad in ("QPolicy", None, {"x": 1}, 7):
        with pytest.raises(ValueError, match="where a list"):
            window.restore({"last": bad, "count": 1})
    window.restore(good)
    assert window.state() == good and window.last.maxlen == 100
