"""PPO's losses: which samples have a gradient, and worked numbers."""

import numpy as np
import pytest
import tensorflow as tf

from baselines_lite.common.optim import losses


@pytest.mark.parametrize(("advantage", "ratio", "moves"), [
    (1.0, 1.3, False),  # already likelier than the clip allows: no reason to go on
    (-1.0, 0.7, False),
    (1.0, 0.7, True),  # moved the wrong way: must be able to come back
    (-1.0, 1.3, True),
    (1.0, 1.1, True),
    (-1.0, 0.9, True),
])
def test_clipped_surrogate_gradient_per_sample(advantage, ratio, moves):
    r = tf.Variable([ratio], dtype=tf.float64)
    with tf.GradientTape() as tape:
        loss = losses.clipped_surrogate(r, tf.constant([advantage], tf.float64), tf.constant(0.2, tf.float64))
    gradient = tape.gradient(loss, r).numpy()[0]
    assert gradient == pytest.approx(-advantage if moves else 0.0)


def test_clipped_value_loss_worked_number():
    """R = 10, V_old = 5, V = 1, range 0.2: V may only count as 4.8 on the far side, 1 is worse: (1 - 10)^2 / 2."""
    args = [tf.constant(x, tf.float64) for x in (1.0, 5.0, 10.0, 0.2)]
    assert losses.clipped_value_loss(*args).numpy() == 40.5
    args[0] = tf.constant(9.0, tf.float64)  # close to the return, but too far from V_old: (5.2 - 10)^2 / 2
    assert losses.clipped_value_loss(*args).numpy() == pytest.approx(0.5 * 4.8**2)


def test_value_loss():
    np.testing.assert_allclose(losses.value_loss(tf.constant([1.0, 3.0]), tf.constant([2.0, 0.0])), [0.5, 4.5])


def test_approx_kl_is_unbiased_and_never_negative():
    rng = np.random.default_rng(0)
    old, new = np.array([0.2, 0.5, 0.3]), np.array([0.3, 0.3, 0.4])
    actions = rng.choice(3, size=400_000, p=old)
    logratio = np.log(new[actions] / old[actions])
    estimate = losses.approx_kl(tf.constant(logratio)).numpy()
    assert estimate == pytest.approx(np.sum(old * np.log(old / new)), rel=0.02)
    assert losses.approx_kl(tf.constant([-0.3])).numpy() > 0 and losses.approx_kl(tf.constant([0.3])).numpy() > 0


def test_clip_fraction():
    ratio = tf.constant([0.79, 0.81, 1.0, 1.19, 1.21])
    assert losses.clip_fraction(ratio, tf.constant(0.2)).numpy() == pytest.approx(0.4)
