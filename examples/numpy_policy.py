"""A trained policy in plain NumPy, from its file alone: for a robot, a game, a page that has no TensorFlow.

    python run.py --alg=ppo2 --env=CartPole-v1 --num_timesteps=1e5 --save_path=cartpole.safetensors
    python examples/numpy_policy.py cartpole.safetensors

For an mlp from a Box of numbers to a Discrete or Box action, by vpg, npg, trpo_mpi, ppo1, ppo2, a2c or acktr. Needs
numpy and safetensors; Gymnasium for the demonstration only.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

ACTIVATIONS = {"tanh": np.tanh, "relu": lambda x: np.maximum(x, 0),
               "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0)))}
ABLE = {"policy": ("ActorCritic",), "network": ("mlp",), "observation space": ("Box",),
        "action space": ("Discrete", "Box")}


def policy_of(path: str) -> tuple[Callable[[np.ndarray], Any], dict[str, Any]]:
    """(a function from an observation to the most probable action, what the file says). ValueError where it cannot."""
    with safe_open(path, "numpy") as file:
        about = json.loads((file.metadata() or {}).get("baselines_lite", "{}"))
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    settings, seen, taken = (about.get(name, {}) for name in ("settings", "observation_space", "action_space"))
    found = about.get("policy"), settings.get("network"), seen.get("kind"), taken.get("kind")
    for (what, able), kind in zip(ABLE.items(), found, strict=True):
        if kind not in able:
            raise ValueError(f"its {what} is {kind}, not {' or '.join(able)}")

    def array(values: dict[str, Any]) -> np.ndarray:  # a space's bound
        return (tensors[values["tensor"]] if "tensor" in values else
                np.full(values["shape"], float(values["value"]), values["dtype"]))

    if array(seen["low"]).dtype == np.uint8:
        raise ValueError("its observations are bytes, which a policy sees scaled from their bounds")
    options, net = settings["network_options"], "weights/pi_net/layers"
    activation, normed = ACTIVATIONS[options.get("activation", "tanh")], options.get("layer_norm", False)
    dense = sum(name.startswith(net) and name.endswith("/w") for name in tensors)
    stride = 3 if normed else 2  # a dense layer, its layer norm, its activation
    if taken["kind"] == "Box":
        low, high = array(taken["low"]), array(taken["high"])
        scaled = settings["action_scale"] & np.isfinite(low) & np.isfinite(high)  # from [-1, 1] to the bounds
        half_low, half_high = np.where(scaled, low, -1) / 2, np.where(scaled, high, 1) / 2

    def act(obs: np.ndarray) -> Any:
        x = np.ravel(obs)
        if "normalize/obs_mean" in tensors:  # running statistics, as they were when the policy was saved
            mean, m2, count = (tensors[f"normalize/obs_{name}"] for name in ("mean", "m2", "count"))
            x = np.clip((x - mean) / np.sqrt(m2 / count + 1e-8), -10, 10)
        x = x.astype(np.float32)
        for i in range(0, dense * stride, stride):
            x = x @ tensors[f"{net}/{i}/w"] + tensors[f"{net}/{i}/b"]
            if normed:
                x = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
                x = x * tensors[f"{net}/{i + 1}/gain"] + tensors[f"{net}/{i + 1}/bias"]
            x = activation(x)
        x = x @ tensors["weights/pi_head/w"] + tensors["weights/pi_head/b"]  # logits, or means
        if taken["kind"] == "Discrete":
            return int(np.argmax(x)) + taken["start"]
        return np.clip(half_low + half_high + (half_high - half_low) * x.reshape(low.shape), low, high)

    return act, about


def main() -> None:
    """Plays an episode."""
    parser = argparse.ArgumentParser(description="Plays an episode with the policy of a model file, in plain NumPy.")
    parser.add_argument("model", help="the model file")
    parser.add_argument("env", nargs="?", help="the environment's id (default: that of the model file)")
    given = parser.parse_args()
    try:
        act, about = policy_of(given.model)
    except (OSError, SafetensorError, ValueError) as error:
        sys.exit(f"cannot use {given.model}: {error}")
    if given.env is None and ":" in about.get("env", ":"):  # unknown, or in a module, which no file names by itself
        sys.exit(f"which environment? Give its id behind {given.model}")
    import gymnasium as gym

    kwargs = {} if given.env else json.loads(about["env_kwargs"] or "{}")
    env, total, over = gym.make(given.env or about["env"], **kwargs), 0.0, False
    obs, _ = env.reset(seed=0)
    while not over:
        obs, reward, terminated, truncated, _ = env.step(act(obs))
        total, over = total + reward, terminated or truncated
    print(f"return {total:g}")


if __name__ == "__main__":
    main()
