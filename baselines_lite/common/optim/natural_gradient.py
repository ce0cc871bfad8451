"""What natural-gradient methods need of a policy on one batch, its parameters taken as one vector theta [P].

The surrogate L(theta) = mean(pi_theta(a|s) / pi_old(a|s) A) + ent_coef mean H; the mean KL(pi_old || pi_theta); the
Fisher matrix F, which is the Hessian of that KL at theta_old and the mean of grad log pi grad log pi^T. Everything is
averaged over ranks, in one Allreduce each.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from baselines_lite.common.networks.distributions import Categorical, Pd
from baselines_lite.common.networks.flat import flat_gradient, flatten, get_flat, set_flat
from baselines_lite.common.optim import losses
from baselines_lite.common.optim.losses import Batch
from baselines_lite.common.policies.actor_critic import ActorCritic
from baselines_lite.common.system.compiled import Compiled
from baselines_lite.common.system.mpi import Comm


class Point(NamedTuple):
    """Figures of the policy at some theta."""

    surrogate: float
    kl: float  # mean KL(old || new), nats
    entropy: float


class PolicyObjective:
    """Give it a batch with `load`; the parameters that the policy has then are theta_old.

    Gradient and Fisher matrix are those at the parameters that the policy has; `point` looks elsewhere and comes back.
    """

    CHUNK = 256  # samples whose scores are held at a time when the Fisher matrix is built

    def __init__(self, policy: ActorCritic, comm: Comm, *, ent_coef: float = 0.0, fisher_every: int = 1,
                 num_env: int = 1) -> None:
        self.policy, self.comm, self.ent_coef = policy, comm, ent_coef
        self.fisher_every, self.num_env = fisher_every, num_env
        self.variables, xla = policy.pi_variables, policy.prefers_xla
        self._gradient, self._point, self._product, self._outer = (
            Compiled(f, xla=xla, any_batch=True)
            for f in (self._gradient_of, self._point_of, self._product_of, self._outer_products))

    def load(self, batch: Batch) -> np.ndarray:
        """Takes a batch with obs, actions, logp and (standardised) advs, [B, ...] each; returns theta_old [P]."""
        self.batch = {name: batch[name] for name in ("obs", "actions", "logp", "advs")}
        self._old = self.policy.distribution(self.batch)
        t, n = np.divmod(np.arange(len(batch["advs"])), self.num_env)
        rows = np.flatnonzero((t + n) % self.fisher_every == 0).astype(np.int32)  # of all environments, in turn
        self._fisher_batch = {name: tf.gather(array, rows) for name, array in self.batch.items()}
        return get_flat(self.variables)

    def assign(self, theta: np.ndarray) -> None:
        """Gives the policies of all ranks the parameters theta, as rank 0 has them."""
        set_flat(self.variables, self.comm.broadcast(theta))

    def gradient(self) -> tuple[np.ndarray, Point]:
        """dL / dtheta [P] at theta_old, and the figures there."""
        vector = self.comm.mean(self._gradient(self.batch).numpy())
        return vector[:-2], Point(float(vector[-2]), 0.0, float(vector[-1]))

    def policy_loss(self, point: Point) -> float:
        """Minus the surrogate at a point, without the entropy bonus: what other algorithms log by this name."""
        return self.ent_coef * point.entropy - point.surrogate

    def point(self, theta: np.ndarray) -> Point:
        """Surrogate, mean KL and entropy at theta."""
        before = get_flat(self.variables)
        set_flat(self.variables, theta)
        try:
            return Point(*self.comm.mean(self._point(self._old, self.batch).numpy()).tolist())
        finally:
            set_flat(self.variables, before)

    def fisher_product(self, v: np.ndarray) -> np.ndarray:
        """F v [P], on every `fisher_every`-th sample."""
        return self.comm.mean(self._product(tf.constant(v), self._fisher_batch).numpy())

    def fisher_matrix(self) -> np.ndarray:
        """F [P, P], as the mean outer product of the score.

        For Discrete actions all of them count, with their probabilities; for others, those that were taken.
        """
        P, size = sum(v.shape.num_elements() for v in self.variables), len(self._fisher_batch["obs"])
        total = np.zeros((P, P), self.policy.dtype.as_numpy_dtype)
        for start in range(0, size, self.CHUNK):
            part = {name: array[start : start + self.CHUNK] for name, array in self._fisher_batch.items()}
            total += self._outer(part["obs"], part["actions"]).numpy()
        return self.comm.mean(total / size)

    def _surrogate(self, pd: Pd, batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        ratio = tf.exp(pd.logp(batch["actions"]) - batch["logp"])
        entropy = tf.reduce_mean(pd.entropy())
        return -tf.reduce_mean(losses.surrogate(ratio, batch["advs"])) + self.ent_coef * entropy, entropy

    def _gradient_of(self, batch: Batch) -> tf.Tensor:
        with tf.GradientTape() as tape:
            surrogate, entropy = self._surrogate(self.policy.evaluate(batch["obs"])[0], batch)
        return tf.concat([flat_gradient(tape, surrogate, self.variables), [surrogate, entropy]], axis=0)

    def _point_of(self, old: Batch, batch: Batch) -> tf.Tensor:
        pd = self.policy.evaluate(batch["obs"])[0]
        surrogate, entropy = self._surrogate(pd, batch)
        kl = self.policy.pdtype.pd(old["old_head"], old.get("old_logstd")).kl(pd)
        return tf.stack([surrogate, tf.reduce_mean(kl), entropy])

    def _product_of(self, v: tf.Tensor, batch: Batch) -> tf.Tensor:
        """The Hessian of the mean KL(old || new) by new, where both are the present policy, times v.

        As the gradient of (its gradient . v).
        """
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                made_of = self.policy.head_and_logstd(batch["obs"])
                old, new = (self.policy.pdtype.pd(*x) for x in (map(tf.stop_gradient, made_of), made_of))
                kl = tf.reduce_mean(old.kl(new))
            g = inner.gradient(kl, self.variables, unconnected_gradients="zero")
            along = tf.reduce_sum(flatten(g) * v)
        return flat_gradient(outer, along, self.variables)

    def scores(self, obs: tf.Tensor, actions: tf.Tensor) -> tf.Tensor:
        """grad log pi(a|s) of each sample: [B, P]."""

        def score(sample: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
            with tf.GradientTape() as tape:
                logp = self.policy.evaluate(sample[0][None])[0].logp(sample[1][None])
            return flat_gradient(tape, logp, self.variables)

        return tf.vectorized_map(score, (obs, actions))

    def _outer_products(self, obs: tf.Tensor, actions: tf.Tensor) -> tf.Tensor:
        pd = self.policy.evaluate(obs)[0]
        if not isinstance(pd, Categorical):
            scores = self.scores(obs, actions)
            return tf.matmul(scores, scores, transpose_a=True)
        total = tf.constant(0.0, self.policy.dtype)
        for action in range(pd.logits.shape[-1]):
            scores = self.scores(obs, tf.fill(tf.shape(actions), tf.cast(action, actions.dtype)))
            weighted = scores * tf.exp(pd.log_probs[:, action])[:, None]
            total += tf.matmul(weighted, scores, transpose_a=True)
        return total
