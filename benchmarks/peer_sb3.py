"""Stable-Baselines3's side of speed.py: runs in its own virtual environment, prints one JSON line."""

import importlib
import json
import sys
import tempfile
import time


def main() -> None:
    """Trains the workload given as JSON and prints its steps/s after the warm steps."""
    job = json.loads(sys.argv[1])
    import gymnasium as gym
    import sb3_contrib
    import stable_baselines3
    import torch
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_atari_env, make_vec_env
    from stable_baselines3.common.logger import configure
    from stable_baselines3.common.noise import NormalActionNoise
    from stable_baselines3.common.vec_env import VecFrameStack, VecNormalize

    torch.set_num_threads(job["threads"])

    class Clock(BaseCallback):
        """Notes the time at the start of each rollout."""

        def __init__(self):
            super().__init__()
            self.marks = []

        def _on_rollout_start(self):
            self.marks.append((time.perf_counter(), self.model.num_timesteps))

        def _on_step(self):
            return True

    # Without the checker, as ours; SB3's Monitor stays, ours logs episodes too.
    if job["pixels"]:
        gym.register_envs(importlib.import_module("ale_py"))
        venv = VecFrameStack(make_atari_env(job["env"], n_envs=job["num_env"], seed=0), n_stack=4)
    else:
        venv = make_vec_env(lambda: gym.make(job["env"], disable_env_checker=True), n_envs=job["num_env"], seed=0)
    if job["normalize"]:
        venv = VecNormalize(venv)
    kind, options = job["peer"], job["peer_options"]
    algorithm = getattr(stable_baselines3, kind, None) or getattr(sb3_contrib, kind)
    if kind == "DDPG":
        options["action_noise"] = NormalActionNoise(0 * venv.action_space.high, 0.1 + 0 * venv.action_space.high)
    model = algorithm("CnnPolicy" if job["pixels"] else "MlpPolicy", venv, seed=0, device="cpu", verbose=0, **options)
    model.set_logger(configure(tempfile.mkdtemp(), ["csv"]))
    clock = Clock()
    steps = job["peer_steps"] or max(job["steps"] // 3, 3 * job["warm"])
    model.learn(steps, callback=clock, log_interval=job["log_interval"])
    start, first = next(mark for mark in clock.marks if mark[1] >= job["warm"])
    print(json.dumps({"sps": (model.num_timesteps - first) / (time.perf_counter() - start)}))


if __name__ == "__main__":
    main()
