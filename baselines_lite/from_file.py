"""The policy of a model file on the command line: in what it was trained, its evaluation, its episodes to watch."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from baselines_lite.common.experiment.config import RunOptions
from baselines_lite.common.system.errors import UserError, counted
from baselines_lite.common.system.folders import now, own_folder, writable
from baselines_lite.common.system.options import Json, to_dict


def evaluate(policy: Any, env: str, run: RunOptions, path: str) -> None:
    """Plays whole episodes, nothing of them drawn; prints what came of them, and writes it to a JSON file."""
    from baselines_lite.common.experiment.evaluation import atari_options, deterministic_in, play_episodes, summary
    from baselines_lite.common.experiment.logger import versions

    deterministic = deterministic_in(policy, env, run.eval_deterministic)
    played = play_episodes(policy, env, run.eval_episodes, deterministic, run.seed)
    found = summary(played)
    interval = found["interval"]
    spread = "" if interval is None else (f", standard error {found['std_error']:.3g}, 95% interval {interval[0]:.5g} "
                                          f"to {interval[1]:.5g} (Student t)")
    print(f"mean return {found['mean']:.5g} over {counted(len(played), 'episode')} of {env}, "
          f"{'the most probable actions' if deterministic else 'actions drawn'}{spread}; least {found['min']:.5g}, "
          f"greatest {found['max']:.5g}; {found['cut']} cut off by a time limit", flush=True)
    atari = atari_options(policy, env)
    with open(run.load_path, "rb") as file:
        model = {"path": run.load_path, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    found = {"env": env, "env_kwargs": policy.info.get("env_kwargs"),
             "algorithm": policy.info.get("algorithm"), "seed": run.seed, "deterministic": deterministic,
             "atari": atari and to_dict(atari), **found, "returns": [episode.ret for episode in played],
             "lengths": [episode.length for episode in played], "model": model, "versions": versions()}
    try:
        Path(path).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write the file {path!r}: {error.strerror}") from None
    print(f"written to {path}")


def check_writable(path: str) -> None:
    """Makes a file's folder if need be. Raises UserError where the file cannot be written."""
    if os.path.isdir(path) or not writable(Path(path).parent):
        raise UserError(f"cannot write the file {path!r}: "
                        + ("it is a folder" if os.path.isdir(path) else "its folder is not writable"))


def check_model_file(path: str) -> None:
    """Raises UserError where there is no file; for a run's folder with the files to choose from."""
    if os.path.isdir(path):
        models = sorted(map(str, Path(path).glob("*.safetensors")), reverse=True)
        raise UserError(f"{path!r} is a folder, " + (f"give a file: {' or '.join(f'--load_path={m}' for m in models)}"
                                                     if models else "in which there is no model file"))
    if not os.path.isfile(path):
        raise UserError(f"there is no model file {path!r}")


def trained_in(path: str) -> dict[str, str]:
    """The environment in which a file's policy was trained, and its keywords if any, as options.

    Raises UserError where the file does not say so, and for what would import a module or has text in it.
    """
    check_model_file(path)
    from baselines_lite.common.policies.file_format import opened  # loads TensorFlow

    with opened(path) as file:
        known = {name: file.metadata.get(name) for name in ("env", "env_kwargs")}
    found = {name: value for name, value in known.items() if isinstance(value, str)}
    trusted_env(found.get("env"), path)
    if Json(found.get("env_kwargs", "{}")).has_text:
        raise UserError(f"the model file {path!r} was trained in {found['env']} with the keywords "
                        f"{found['env_kwargs']}, in which there is text: if you trust it, give --env={found['env']} "
                        f"--env_kwargs={shlex.quote(found['env_kwargs'])}")
    return found


def env_of(policy: Any, path: str) -> str:
    """The environment in which a file's policy was trained. Raises UserError where that would import a module."""
    return trusted_env(policy.info.get("env"), path)


def trusted_env(env: str | None, path: str) -> str:
    """The environment that a model file names. Raises UserError where that is none, or would import a module."""
    if env is None:
        raise UserError(f"the model file {path!r} does not say in which environment it was trained; give --env=ID")
    module, colon, _ = env.rpartition(":")
    if colon and module not in sys.modules:
        raise UserError(f"the model file {path!r} was trained in {env}, from a module that nobody has imported; if you "
                        f"trust it, give --env={env}")
    return env


def watch(policy: Any, env: str, command: Any, folder: str, seed: int = 0) -> None:
    """Plays episodes in a window, or into --record, or into a video below `folder`; prints their returns."""
    from baselines_lite.common.envs.video import has_display
    from baselines_lite.common.experiment.evaluation import watch_episodes

    path = command.record
    if path is None and not has_display():
        path = os.path.join(own_folder(os.path.join(folder, "videos", now())), "episodes.mp4")
        print(f"no display: the video goes to {path}", flush=True)
    returns = []
    for episode in watch_episodes(policy, env, command.play_episodes, command.deterministic, seed, path):
        returns.append(episode.ret)
        print(f"episode {len(returns)}: return {episode.ret:.1f}{', cut off by the time limit' if episode.cut else ''}",
              flush=True)
    print(f"mean return {sum(returns) / len(returns):.1f} over {counted(len(returns), 'episode')}"
          + (f", recorded in {path}" if command.record else ""))
