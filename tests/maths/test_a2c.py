"""A2C's returns, gradient and optimizer against figures worked out by hand."""

import gymnasium as gym
import numpy as np
import tensorflow as tf

from baselines_lite.common.networks.flat import get_flat
from baselines_lite.common.optim import losses
from baselines_lite.common.optim.mpi_rmsprop import MpiRmsProp
from baselines_lite.common.policies.actor_critic import ActorCritic
from baselines_lite.common.sampling.returns import generalized_advantages
from baselines_lite.common.system.mpi import Comm


def test_n_step_returns_of_baselines_own_test():
    """Rewards 1, 2, 3, 4 with an episode's end before the fourth: [1 + 2g + 3g^2, 2 + 3g, 3, 4]."""
    g = 0.9
    rewards, zero = np.array([[1.0], [2], [3], [4]]), np.zeros((4, 1))
    ends = np.array([[0], [0], [1], [1]], bool)
    _, returns = generalized_advantages(rewards, zero, zero, ends, ends, g, 1.0)
    np.testing.assert_allclose(returns[:, 0], [1 + 2 * g + 3 * g**2, 2 + 3 * g, 3, 4])


def test_the_gradient_of_a_two_state_softmax_by_hand():
    policy = ActorCritic(gym.spaces.Discrete(2), gym.spaces.Discrete(2), dtype=tf.float64, value_network="copy",
                         network_options={"num_layers": 0})
    w = np.array([[0.3, -0.2], [1.0, 0.5]])
    policy.pi_head.w.assign(w)
    policy.vf_head.w.assign([[0.5], [-1.0]])
    obs, actions = np.eye(2)[[0, 1, 1]], np.array([1, 0, 0])
    advs, returns = np.array([2.0, -1.0, 0.5]), np.array([1.0, 0.0, 3.0])
    batch = {k: tf.constant(v) for k, v in dict(obs=obs, actions=actions, advs=advs, returns=returns).items()}
    with tf.GradientTape() as tape:
        loss, stats = losses.actor_critic_loss(policy, batch, 0.1, 0.5)
    g = policy.parameters.split(tape.gradient(loss, policy.trainable_variables), policy.trainable_variables)
    to_pi, to_vf = g[policy.pi_head.w], g[policy.vf_head.w]
    pi = np.exp(obs @ w) / np.exp(obs @ w).sum(axis=1, keepdims=True)
    entropy = -(pi * np.log(pi)).sum(axis=1, keepdims=True)
    to_logits = -(np.eye(2)[actions] - pi) * advs[:, None] + 0.1 * pi * (np.log(pi) + entropy)
    np.testing.assert_allclose(to_pi, obs.T @ to_logits / 3, atol=1e-12)
    v = (obs @ [[0.5], [-1.0]])[:, 0]
    np.testing.assert_allclose(to_vf, obs.T @ (v - returns)[:, None] / 3, atol=1e-12)  # 0.5 * d/dv (v - R)^2
    np.testing.assert_allclose(stats[1], np.square(v - returns).mean())


def test_three_steps_of_rmsprop_from_a_mean_square_of_one():
    theta = tf.Variable(np.array([1.0, -2.0]))
    rms = MpiRmsProp([theta], Comm(), decay=0.9, epsilon=1e-3, max_grad_norm=5.0)
    plain, ms = np.array([1.0, -2.0]), np.ones(2)
    for g in ([0.5, -1.0], [2.0, 0.0], [30.0, 40.0]):  # the last is scaled down to [3, 4]
        rms.apply([tf.constant(np.array(g))], tf.constant(0.1, tf.float64))
        g = np.array(g) * min(1.0, 5.0 / np.linalg.norm(g))
        ms = 0.9 * ms + 0.1 * g**2
        plain = plain - 0.1 * g / np.sqrt(ms + 1e-3)
    np.testing.assert_allclose(get_flat([theta]), plain, rtol=1e-12)
    np.testing.assert_allclose(rms.ms[0], ms, rtol=1e-12)
