"""Compiled functions, and a policy that follows an optimizer."""

from typing import NamedTuple

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf

from baselines_lite.common import losses
from baselines_lite.common.checkpoint import load_policy
from baselines_lite.common.compiled import Compiled
from baselines_lite.common.flat import Parts, get_flat, set_flat
from baselines_lite.common.minibatch import Minibatches
from baselines_lite.common.mpi import Comm
from baselines_lite.common.mpi_rmsprop import MpiRmsProp
from baselines_lite.common.policy import ActorCritic

BOX = gym.spaces.Box(-1, 1, (3,))


class Pair(NamedTuple):
    """A structure for inputs and outputs."""

    a: tf.Tensor
    b: list


@pytest.mark.parametrize("xla", [False, True])
def test_nested_tensors_come_back_in_their_places(xla):
    scale = tf.Variable(2.0)

    def function(pair, named):
        return {"z": pair.a * scale, "a": [named["y"], Pair(named["x"] + 1, [pair.b[0]])]}, None

    run = Compiled(function, xla=xla)
    for value in (2.0, 5.0):  # the variable's present value
        scale.assign(value)
        found, nothing = run(Pair(tf.constant([1.0, 2.0]), [tf.constant(7)]),
                             {"x": tf.constant(3), "y": tf.constant([[4.0]])})
        assert nothing is None and set(found) == {"z", "a"}
        np.testing.assert_array_equal(found["z"], [value, 2 * value])
        y, pair = found["a"]
        assert isinstance(pair, Pair) and (y.numpy(), pair.a.numpy(), pair.b[0].numpy()) == ([[4.0]], 4, 7)


@pytest.mark.parametrize(("any_batch", "traces"), [(False, 4), (True, 2)])
def test_other_shapes_are_traced_once_each_or_together(any_batch, traces):
    count = 0

    def total(x):
        nonlocal count
        count += 1
        return tf.reduce_sum(x, axis=0)

    run = Compiled(total, xla=False, any_batch=any_batch)
    for rows in (1, 2, 3, 4, 3, 2, 1):
        np.testing.assert_array_equal(run(tf.ones([rows, 2])), [rows, rows])
    assert count == traces


@pytest.mark.parametrize("xla", [False, True])
def test_a_function_that_branches_on_tensors_has_to_ask_for_it(xla):
    def size(x):
        if x > 0:
            return x
        return -x

    with pytest.raises(TypeError, match=r"@tf\.function"):
        Compiled(size, xla=xla)(tf.constant(-3))
    asks = tf.function(size)
    run = Compiled(lambda x: asks(x) + 1, xla=xla)
    assert run(tf.constant(-3)).numpy() == 4 and run(tf.constant(3)).numpy() == 4


def test_run_eagerly_shows_a_debugger_the_values():
    seen = []

    def double(x):
        seen.append(x.numpy())
        return 2 * x

    run = Compiled(double, xla=True)
    tf.config.run_functions_eagerly(True)
    try:
        assert run(tf.constant(3)).numpy() == 6 and seen == [3]
    finally:
        tf.config.run_functions_eagerly(False)


def test_parts_give_back_what_was_written():
    variables = [tf.Variable(tf.zeros(shape)) for shape in ((300, 300), (2, 3), (), (4,))]
    parts = Parts(variables)
    assert len(parts.sizes) == 2  # the large one alone
    values = np.random.default_rng(0).normal(size=90_011).astype(np.float32)
    set_flat(variables, values)
    vectors = parts.read()
    parts.write([2 * vector for vector in vectors])
    np.testing.assert_array_equal(get_flat(variables), 2 * values)
    np.testing.assert_array_equal(np.concatenate([v.numpy() for v in vectors]),
                                  np.concatenate([v.numpy() / 2 for v in parts.join(variables)]))


def stepped(policy, lead, count=3):
    """A policy after some steps on random samples."""
    rng = np.random.default_rng(1)
    optimizer = MpiRmsProp(policy.trainable_variables, Comm())
    if lead:
        optimizer.lead(policy)
    step = Minibatches(policy, optimizer, lambda b, _: losses.actor_critic_loss(policy, b, 0.01, 0.5), ("a", "b", "c"))
    obs, actions = rng.normal(size=(2, 8, 3)).astype(np.float32)
    advs, returns = rng.normal(size=(2, 8)).astype(np.float32)
    for _ in range(count):
        step({name: tf.constant(x) for name, x in dict(obs=obs, actions=actions, advs=advs, returns=returns).items()},
             None, 0.05)
    return obs


@pytest.mark.parametrize("read_first", ["actor", "values", "evaluate", "logp", "variables", "save"])
def test_who_follows_an_optimizer_is_up_to_date_whoever_asks_first(read_first, tmp_path):
    leader, policy = (ActorCritic(BOX, BOX, seed=0) for _ in range(2))
    obs = stepped(leader, lead=False)
    stepped(policy, lead=True)
    pd, values = leader.evaluate(tf.constant(obs))
    heads = leader.compiled_actor()(obs, None).heads
    if read_first == "actor":
        np.testing.assert_allclose(policy.actor()(obs, None).heads, heads, atol=1e-5)
    elif read_first == "values":
        np.testing.assert_allclose(policy.values(obs), values, atol=1e-5)
    elif read_first == "evaluate":
        np.testing.assert_allclose(policy.evaluate(tf.constant(obs))[0].mean, pd.mean, atol=1e-5)
    elif read_first == "logp":
        np.testing.assert_allclose(policy.logp(heads, heads), leader.logp(heads, heads), atol=1e-5)
    elif read_first == "save":
        policy.save(str(tmp_path / "model.safetensors"))
        again = load_policy(str(tmp_path / "model.safetensors"))
        np.testing.assert_allclose(get_flat(again.trainable_variables), get_flat(leader.trainable_variables), atol=1e-6)
    np.testing.assert_allclose(get_flat(policy.trainable_variables), get_flat(leader.trainable_variables), atol=1e-6)


def test_values_assigned_by_hand_are_kept_by_an_optimizer_that_does_not_lead():
    policy = ActorCritic(BOX, BOX, seed=0)
    step = Minibatches(policy, MpiRmsProp(policy.trainable_variables, Comm()),
                       lambda b, _: (tf.reduce_sum(policy.logstd) * 0, tf.zeros(1)), ("a",))
    policy.logstd.assign([-3.0, -2.0, -1.0])
    step({"obs": tf.zeros([1, 3])}, None, 0.1)
    np.testing.assert_array_equal(policy.logstd, [-3.0, -2.0, -1.0])
