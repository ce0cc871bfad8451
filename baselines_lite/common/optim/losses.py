"""Losses of policies, values and action values, per sample [B] or their mean, each written once."""

from __future__ import annotations

import tensorflow as tf

from baselines_lite.common.policies.actor_critic import ActorCritic

Batch = dict[str, tf.Tensor]  # samples [b, ...] by name


def policy_gradient_loss(logp: tf.Tensor, advs: tf.Tensor) -> tf.Tensor:
    """-log pi(a|s) A per sample [B]: down its gradient is along the policy gradient (Sutton et al. 2000)."""
    return -logp * advs


def surrogate(ratio: tf.Tensor, advs: tf.Tensor) -> tf.Tensor:
    """-r A per sample [B] (1707.06347, eq. 6), r = pi(a|s) / pi_old(a|s)."""
    return -ratio * advs


def clipped_surrogate(ratio: tf.Tensor, advs: tf.Tensor, cliprange: tf.Tensor) -> tf.Tensor:
    """-min(r A, clip(r, 1 - eps, 1 + eps) A) per sample [B] (PPO, 1707.06347, eq. 7), r = pi(a|s) / pi_old(a|s)."""
    clipped = tf.clip_by_value(ratio, 1.0 - cliprange, 1.0 + cliprange)
    return -tf.minimum(ratio * advs, clipped * advs)


def value_loss(vpred: tf.Tensor, returns: tf.Tensor) -> tf.Tensor:
    """(V - R)^2 / 2 per sample [B]."""
    return 0.5 * tf.square(vpred - returns)


def actor_critic_loss(policy: ActorCritic, batch: Batch, ent_coef: float, vf_coef: float
                      ) -> tuple[tf.Tensor, tf.Tensor]:
    """-mean(log pi(a|s) A) - ent_coef H + vf_coef mean (V - R)^2 of a batch, and [policy loss, value loss, H].

    What a2c and acktr share (1602.01783, section 4). Advantages come as they are; the value's error is not halved.
    """
    pd, vpred = policy.evaluate(batch["obs"], batch.get("states"), batch.get("firsts"))
    policy_loss = tf.reduce_mean(policy_gradient_loss(pd.logp(batch["actions"]), batch["advs"]))
    error = tf.reduce_mean(2 * value_loss(vpred, batch["returns"]))
    entropy = tf.reduce_mean(pd.entropy())
    return policy_loss - ent_coef * entropy + vf_coef * error, tf.stack([policy_loss, error, entropy])


def value_fit(policy: ActorCritic, batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
    """mean (V - R)^2 / 2 of a minibatch, as a Minibatches takes it: the loss, and it again to be logged."""
    _, vpred = policy.evaluate(batch["obs"], batch.get("states"), batch.get("firsts"))
    loss = tf.reduce_mean(value_loss(vpred, batch["returns"]))
    return loss, loss[None]


def clipped_value_loss(vpred: tf.Tensor, values: tf.Tensor, returns: tf.Tensor, cliprange: tf.Tensor) -> tf.Tensor:
    """The larger of the losses of V and of V kept within cliprange of `values`, per sample [B].

    These are the values that advantages were found by: those at collection, or those before the epoch.
    From Baselines' ppo2, not in the paper; it depends on the scale of the rewards.
    """
    near = values + tf.clip_by_value(vpred - values, -cliprange, cliprange)
    return tf.maximum(value_loss(vpred, returns), value_loss(near, returns))


def approx_kl(logratio: tf.Tensor) -> tf.Tensor:
    """mean(r - 1 - log r): a non-negative, unbiased estimate of KL(old || new), nats, from the old policy's actions."""
    return tf.reduce_mean(tf.math.expm1(logratio) - logratio)


def clip_fraction(ratio: tf.Tensor, cliprange: tf.Tensor) -> tf.Tensor:
    """The share of samples whose ratio left [1 - eps, 1 + eps]."""
    return tf.reduce_mean(tf.cast(tf.abs(ratio - 1.0) > cliprange, ratio.dtype))


def huber(errors: tf.Tensor) -> tf.Tensor:
    """e^2 / 2 where |e| <= 1, else |e| - 1/2: its gradient is the error clipped to [-1, 1] (Mnih et al. 2015)."""
    size = tf.abs(errors)
    return tf.where(size <= 1.0, 0.5 * tf.square(errors), size - 0.5)


def td_target(rewards: tf.Tensor, terminated: tf.Tensor, next_values: tf.Tensor, gamma: float) -> tf.Tensor:
    """r + gamma (1 - terminated) V(s'), of any shape, in the dtype of next_values."""
    alive = 1.0 - tf.cast(terminated, next_values.dtype)
    return tf.cast(rewards, next_values.dtype) + gamma * alive * next_values


def explained_variance(predictions: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """1 - Var[targets - predictions] / Var[targets] []: 1 perfect, 0 no better than a constant."""
    total, left = tf.math.reduce_variance(targets), tf.math.reduce_variance(targets - predictions)
    return 1.0 - left / tf.maximum(total, 1e-12)


def pick(table: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """The elements of a table [..., K] at columns [...]: [...]. By one-hots, which XLA and gradients prefer."""
    return tf.reduce_sum(table * tf.one_hot(columns, table.shape[-1], dtype=table.dtype), axis=-1)
