"""A trained policy in plain NumPy, from its file alone: for a robot, a game, a page that has no TensorFlow.

    python run.py --alg=ppo2 --env=CartPole-v1 --num_timesteps=1e5 --save_path=cartpole.safetensors
    python examples/numpy_policy.py cartpole.safetensors

For an mlp that acts on vectors, as ppo1, ppo2, a2c, acktr, vpg, npg and trpo_mpi make them. Needs numpy and
safetensors; Gymnasium for the demonstration only.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
from safetensors.numpy import load_file

ACTIVATIONS = {"tanh": np.tanh, "relu": lambda x: np.maximum(x, 0), "elu": lambda x: np.where(x > 0, x, np.expm1(x))}


def policy_of(path: str, activation: str = "tanh") -> Callable[[np.ndarray], np.ndarray]:
    """A function from one observation [d] to what the policy's head says: logits, or the mean of a Gaussian."""
    tensors = load_file(path)
    names = [name for name in tensors if name.startswith("weights/pi_net/layers/") and name.endswith("/w")]
    numbers = sorted(int(name.split("/")[3]) for name in names)
    layers = [(tensors[f"weights/pi_net/layers/{i}/w"], tensors[f"weights/pi_net/layers/{i}/b"]) for i in numbers]
    head = tensors["weights/pi_head/w"], tensors["weights/pi_head/b"]
    mean, deviation = 0.0, 1.0
    if "normalize/obs_mean" in tensors:  # running statistics, as they were when the policy was saved
        mean = tensors["normalize/obs_mean"]
        deviation = np.sqrt(tensors["normalize/obs_m2"] / tensors["normalize/obs_count"] + 1e-8)

    def act(obs: np.ndarray) -> np.ndarray:
        x = np.clip((obs - mean) / deviation, -10, 10) if "normalize/obs_mean" in tensors else obs
        x = np.asarray(x, np.float32)
        for w, b in layers:
            x = ACTIVATIONS[activation](x @ w + b)
        return x @ head[0] + head[1]

    return act


def main() -> None:
    """Plays an episode of CartPole."""
    import gymnasium as gym

    env, act, total, over = gym.make("CartPole-v1"), policy_of(sys.argv[1]), 0.0, False
    obs, _ = env.reset(seed=0)
    while not over:
        obs, reward, terminated, truncated, _ = env.step(int(np.argmax(act(obs))))
        total, over = total + reward, terminated or truncated
    print(f"return {total:g}")


if __name__ == "__main__":
    main()
