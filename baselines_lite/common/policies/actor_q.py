"""The actor-critic whose critic values actions: what off-policy corrections need."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import tensorflow as tf

from baselines_lite.common.policies.actor_critic import ActorCritic
from baselines_lite.common.system.errors import UserError


class ActorQ(ActorCritic):
    """A policy pi(a|s) over K Discrete actions and action values Q(s, a); V(s) = sum_a pi(a|s) Q(s, a).

    As ActorCritic, with a value head of K outputs.
    """

    def __init__(self, observation_space: gym.Space, action_space: gym.Space, **options: Any) -> None:
        if not isinstance(action_space, gym.spaces.Discrete):
            raise UserError(f"the action space {action_space} is not supported by acer, which sums over all actions; "
                            "supported is Discrete")
        super().__init__(observation_space, action_space, **options)

    @property
    def vf_outputs(self) -> int:
        return self.pdtype.head_size

    def heads(self, pi_latent: tf.Tensor, vf_latent: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        head = self.pi_head(pi_latent)
        return head, expected(self.pdtype.pd(head).log_probs, self.vf_head(vf_latent))

    def log_pi_and_q(self, features: tf.Tensor, state: tf.Tensor | None = None, firsts: tf.Tensor | None = None
                     ) -> tuple[tf.Tensor, tf.Tensor]:
        """(log pi(a|s), Q(s, a)) of every action: [B, K] each, of features [B, ...], differentiable."""
        with self.parameters.read_once():
            pi_latent, vf_latent, _ = self.latents(features, state, firsts)
            return self.pdtype.pd(self.pi_head(pi_latent)).log_probs, self.vf_head(vf_latent)

    def log_probs(self, heads: np.ndarray) -> np.ndarray:
        """log pi(a|s) of every action [..., K] by the policy head's outputs [..., K]."""
        return self.pdtype.pd(tf.constant(heads)).log_probs.numpy()


def expected(log_pi: tf.Tensor, q: tf.Tensor) -> tf.Tensor:
    """sum_a pi(a|s) Q(s, a) [...] of log pi and Q, [..., K] each: V(s)."""
    return tf.reduce_sum(tf.exp(log_pi) * q, axis=-1)
