"""Who owns the parameters: one copy of each, in a variable, whatever reads it."""

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf

from baselines_lite import UserError, a2c, load, registry
from baselines_lite.common.networks.builders import NETWORKS
from baselines_lite.common.networks.flat import get_flat
from baselines_lite.common.networks.layers import Activation, Dense, Sequential
from baselines_lite.common.networks.parameters import Parameter, Parameters, trainable
from baselines_lite.common.optim import losses
from baselines_lite.common.optim.minibatch import Minibatches
from baselines_lite.common.optim.mpi_adam import MpiAdam
from baselines_lite.common.policies.actor_critic import ActorCritic
from baselines_lite.common.policies.actor_q import ActorQ
from baselines_lite.common.policies.deterministic_policy import DeterministicPolicy
from baselines_lite.common.policies.q_policy import QPolicy
from baselines_lite.common.system.compiled import Compiled
from baselines_lite.common.system.mpi import Comm

BOX, CHOICE = gym.spaces.Box(-1, 1, (3,)), gym.spaces.Discrete(3)
PICTURE = gym.spaces.Box(0, 255, (36, 36, 4), np.uint8)


def network(size):
    rng = np.random.default_rng(0)
    first, last = (Dense(n, m, rng=rng, dtype=tf.float64) for n, m in ((size, 300), (300, 300)))
    return Sequential([first, Activation("tanh"), last], 300)


def test_small_parameters_are_joined_and_keep_their_values():
    net, plain, own = network(4), network(4), Parameter(np.ones((2, 2)), tf.float64)
    joined = Parameters([net, own])
    # The large one stays alone.
    assert [v.shape for v in trainable(net, own)] == [(4 * 300 + 300 + 300 + 4,), (300, 300)]
    assert sum(1 for _ in joined) == 5
    x = tf.constant(np.random.default_rng(1).normal(size=(5, 4)))
    for read_once in (False, True):
        with tf.GradientTape() as tape, tf.GradientTape() as other:
            if read_once:
                with joined.read_once():
                    y = tf.reduce_sum(tf.square(net(x)))
            else:
                y = tf.reduce_sum(tf.square(net(x)))
            expected = tf.reduce_sum(tf.square(plain(x)))
        np.testing.assert_allclose(y, expected, rtol=1e-12)
        g = joined.split(tape.gradient(y, trainable(net), unconnected_gradients="zero"), trainable(net))
        alone = other.gradient(expected, trainable(plain))
        for layer, twin in zip(net.layers[::2], plain.layers[::2], strict=True):
            for mine, theirs in ((layer.w, twin.w), (layer.b, twin.b)):
                there = next(x for v, x in zip(trainable(plain), alone, strict=True) if v is theirs.variable)
                np.testing.assert_allclose(g[mine], there, rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(g[own], np.zeros((2, 2)))


@pytest.mark.parametrize("index", [0, 2])  # in a joined variable, and alone in one
def test_what_is_assigned_counts_for_everyone(index):
    net = network(4)
    Parameters([net])
    layer, x = net.layers[index], np.random.default_rng(1).normal(size=(2, 4))
    compiled, array = Compiled(net, xla=True), layer.w.numpy()
    old, before = array.copy(), compiled(tf.constant(x)).numpy()
    layer.w.assign(2 * layer.w)
    layer.w.variable.assign(2 * layer.w.variable)
    np.testing.assert_array_equal(array, old)  # an array that was given out stays
    np.testing.assert_array_equal(layer.w.numpy(), 4 * old)
    np.testing.assert_allclose(net.numpy()(x.copy()), net(tf.constant(x)), rtol=1e-10)
    np.testing.assert_allclose(compiled(tf.constant(x)), net(tf.constant(x)), rtol=1e-10)
    assert np.abs(compiled(tf.constant(x)) - before).mean() > 0.1
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
        layer.w.assign(np.zeros((3, 3)))


def test_within_a_block_arrays_are_read_once_into_the_same_memory():
    net = network(4)
    joined, layer = Parameters([net]), net.layers[0]
    with joined.arrays_once():
        array, before = layer.w.numpy(), layer.w.numpy().copy()
        with joined.arrays_once():  # as an actor asks within a rollout
            assert layer.w.numpy() is array
    layer.w.assign(3 * layer.w)
    np.testing.assert_array_equal(array, before)
    with joined.arrays_once():
        assert layer.w.numpy() is array
        np.testing.assert_array_equal(array, 3 * before)
    assert layer.w.numpy() is not array


def test_a_joined_policy_is_the_same_in_one_variable():
    apart, joined = (ActorCritic(BOX, BOX, seed=1, joined=j) for j in (False, True))
    x = np.random.default_rng(2).normal(size=(4, 3)).astype(np.float32)
    for mine, theirs in ((apart.values(x), joined.values(x)), (apart.actor()(x, None).heads,
                                                               joined.actor()(x, None).heads)):
        np.testing.assert_array_equal(mine, theirs)
    assert (len(apart.trainable_variables), len(joined.trainable_variables)) == (2, 1)
    assert len(joined.copy().trainable_variables) == 1
    for of_a_part in ("pi_variables", "vf_variables"):
        with pytest.raises(RuntimeError, match="one_optimizer"):
            getattr(joined, of_a_part)


def policies():
    yield "actor-critic", ActorCritic(BOX, BOX, seed=1), lambda p, x: p.actor()(x, None).heads
    yield "values", ActorCritic(BOX, BOX, seed=1), lambda p, x: p.values(x)
    yield "compiled", ActorCritic(BOX, BOX, seed=1), lambda p, x: p.compiled_actor()(x, None).heads
    yield "logp", ActorCritic(BOX, BOX, seed=1), lambda p, x: p.values_and_logp(x, x)[1]
    yield "lstm", ActorCritic(BOX, CHOICE, network="lstm", seed=1), lambda p, x: p.step(x)[1]
    yield "cnn", ActorCritic(PICTURE, CHOICE, network="cnn_small", seed=1), lambda p, x: p.step(x)[1]
    yield "bfloat16", ActorCritic(PICTURE, CHOICE, network="cnn_small", seed=1, compute="bfloat16"), (
        lambda p, x: p.actor()(x, None).values)
    yield "acer", ActorQ(BOX, CHOICE, seed=1), lambda p, x: p.step(x)[1]
    yield "q", QPolicy(BOX, CHOICE, seed=1), lambda p, x: p.q_function()(x)
    yield "pi", DeterministicPolicy(BOX, BOX, seed=1), lambda p, x: p.pi_function()(x)


@pytest.mark.parametrize(("policy", "function"), [p[1:] for p in policies()], ids=[p[0] for p in policies()])
def test_a_policy_acts_with_what_its_variables_hold(policy, function):
    space = policy.observation_space
    x = np.random.default_rng(2).uniform(0, 200 if space is PICTURE else 1, size=(4, *space.shape)).astype(space.dtype)
    before = function(policy, x)
    np.testing.assert_array_equal(function(policy.copy(), x), before)
    for v in policy.trainable_variables:
        v.assign(v + 0.1)
    assert not np.allclose(function(policy, x), before, atol=1e-3)
    np.testing.assert_array_equal(function(policy.copy(), x), function(policy, x))


def test_after_training_too(tmp_path):
    policy = a2c.learn("CartPole-v1", 400, num_env=2, nsteps=5, print_interval=1e9, save_path=str(tmp_path / "m"))
    obs = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    np.testing.assert_array_equal(policy.step(obs)[1], load(str(tmp_path / "m")).step(obs)[1])
    for v in policy.trainable_variables:
        v.assign(tf.zeros_like(v))
    _, values, _, logp = policy.step(obs)
    assert (values == 0).all() and logp == pytest.approx(np.log(0.5))


class Plain(tf.Module):
    """A network with tf.Variables of its own, beside a layer of ours; `asks` puts @tf.function on its call."""

    def __init__(self, size, rng, dtype, asks):
        super().__init__()
        self.out_size, self.inner = 8, Dense(size, 8, rng=rng, dtype=dtype)
        self.matrices = [tf.Variable(rng.normal(size=(8, 8)), dtype=dtype)]
        self.call = tf.function(self.forward) if asks else self.forward

    def __call__(self, x):
        return self.call(x)

    def forward(self, x):
        return tf.tanh(tf.matmul(tf.tanh(self.inner(x)), self.matrices[0]))


def plain(size, *, rng, dtype, name):
    return Plain(size, rng, dtype, asks=False)


def asking(size, *, rng, dtype, name):
    return Plain(size, rng, dtype, asks=True)


class Hidden:
    """No tf.Module."""

    def __init__(self, size, rng, dtype):
        self.out_size, self.w = 4, Parameter(rng.normal(size=(size, 4)), dtype, "hidden")

    def __call__(self, x):
        return tf.matmul(x, self.w.value())


class Keras(tf.Module):
    """Has a layer that makes its variables at its first call."""

    out_size = 4

    def __init__(self):
        super().__init__()
        self.layer = tf.keras.layers.Dense(4)

    def __call__(self, x):
        return self.layer(x)


class Remembers(tf.Module):
    """A network with memory, whose weights are hidden, or its own, which it makes at its first call."""

    out_size = state_size = 4

    def __init__(self, hidden=None):
        super().__init__()
        self.hidden, self.w, self.calls = hidden, None, tf.Variable(0, trainable=False)

    def __call__(self, x, state, firsts):
        self.calls.assign_add(1)
        if self.hidden is None and self.w is None:
            self.w = tf.Variable(tf.ones([3, 4]))
        y = state[:, None] + tf.matmul(x, self.w if self.hidden is None else self.hidden.w.value())
        return y, y[:, -1]


LOST = {"hidden": lambda size, *, rng, dtype, name: Sequential([Hidden(size, rng, dtype), Activation("tanh")], 4),
        "all hidden": lambda size, *, rng, dtype, name: Hidden(size, rng, dtype),
        "keras": lambda size, *, rng, dtype, name: Keras(),
        "memory": lambda size, *, rng, dtype, name: Remembers(Hidden(size, rng, dtype))}


@pytest.mark.parametrize("name", LOST)
def test_variables_that_would_not_be_trained_are_refused(name, monkeypatch):
    """Where they are not found they were neither trained nor written to a file, and nobody was told."""
    monkeypatch.setitem(NETWORKS, name, LOST[name])
    count = 2 if name == "keras" else 1
    with pytest.raises(UserError, match=f"the network {name} computes with {count} variables? that would not be tr"):
        ActorCritic(BOX, CHOICE, network=name)


def test_a_network_may_make_its_variables_at_its_first_call(monkeypatch):
    monkeypatch.setitem(NETWORKS, "late", lambda size, *, rng, dtype, name: Remembers())
    policy = ActorCritic(BOX, CHOICE, network="late", value_network="shared")
    assert policy.pi_net.calls.numpy() == 0  # that it ran once to see what it has is not seen
    np.testing.assert_array_equal(policy.pi_net.w, np.ones((3, 4)))
    assert any(v is policy.pi_net.w for v in policy.pi_variables)
    np.testing.assert_allclose(policy.predict([1, 2, 4])[1], np.full((1, 4), 7.0))


SHORT = dict(num_env=2, nsteps=8, print_interval=1e9, seed=3, threads=1)
REPLAY = dict(SHORT, learning_starts=16, batch_size=8, buffer_size=100)
OPTIONS = {"vpg": dict(SHORT, vf_iters=2, vf_minibatches=4), "npg": dict(SHORT, vf_iters=2, vf_minibatches=4),
           "trpo_mpi": dict(SHORT, vf_iters=2, vf_minibatches=4), "ppo1": dict(SHORT, nminibatches=4, noptepochs=2),
           "ppo2": dict(SHORT, nminibatches=4, noptepochs=2), "a2c": SHORT, "acer": dict(SHORT, replay_start=16),
           "deepq": dict(REPLAY, train_freq=2), "ddpg": dict(REPLAY, train_steps=4)}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_network_with_a_tf_function_of_its_own_trains_as_without(name):
    env = "Pendulum-v1" if name == "ddpg" else "CartPole-v1"
    here = "tests.maths.test_parameters"
    one, other = (registry.find(name).learn(env, 96, network=f"{here}:{net}", **OPTIONS[name])
                  for net in ("plain", "asking"))
    start = registry.find(name).learn(env, 48, network=f"{here}:plain", **OPTIONS[name])
    theta = get_flat(one.trainable_variables)
    np.testing.assert_allclose(get_flat(other.trainable_variables), theta, rtol=1e-4, atol=1e-6)
    assert np.abs(theta - get_flat(start.trainable_variables)).max() > 1e-5


class Asking(Sequential):
    """Layers of ours, inside a @tf.function."""

    @tf.function
    def __call__(self, x):
        return super().__call__(x)


def layers_inside(size, *, rng, dtype, name):
    return Asking([Dense(size, 8, rng=rng, dtype=dtype), Activation("tanh")], 8)


@pytest.mark.parametrize(("network", "reason"), [("asking", "matrices"), ("layers_inside", "@tf.function")])
def test_acktr_says_that_it_does_not_support_such_a_network(network, reason):
    with pytest.raises(UserError, match=f"KFAC does not support the network .*{reason}"):
        registry.find("acktr").learn("CartPole-v1", 96, network=f"tests.maths.test_parameters:{network}", **SHORT)


def test_weights_in_a_loss_are_those_that_are_trained():
    """L2 on the policy's parameters, on some of them, on a variable captured outside: against the gradient by hand."""
    policy = ActorCritic(BOX, CHOICE, seed=1, dtype=tf.float64, network_options={"num_hidden": 4})
    captured, kernel = policy.pi_variables[0], policy.vf_head.w
    obs = tf.constant(np.random.default_rng(0).normal(size=(6, 3)))

    def loss(batch, _):
        _, vpred = policy.evaluate(batch["obs"])
        l2 = sum(tf.nn.l2_loss(v) for v in policy.trainable_variables)
        return (tf.reduce_sum(vpred) + 10 * l2 + 100 * tf.nn.l2_loss(captured) + 1000 * tf.nn.l2_loss(kernel.value()),
                tf.zeros([1], tf.float64))

    with tf.GradientTape() as tape:
        value = tf.reduce_sum(policy.evaluate(obs)[1])
    of_values = tape.gradient(value, policy.vf_variables[0]).numpy()
    weights = policy.parameters.split([np.zeros_like(of_values)], policy.vf_variables)  # which are the kernel's
    is_kernel = np.concatenate([np.full(p.shape.num_elements(), p is kernel) for p in weights])
    pi, vf = (get_flat(v) for v in (policy.pi_variables, policy.vf_variables))
    expected = np.concatenate([110 * pi, of_values + 10 * vf + 1000 * is_kernel * vf])
    step = Minibatches(policy, MpiAdam([*policy.pi_variables, *policy.vf_variables], Comm()), loss, ("nothing",))
    g, _ = step._gradient({"obs": obs}, tf.zeros([0]))
    np.testing.assert_allclose(np.concatenate([x.numpy() for x in g]), expected, rtol=1e-10)
    step({"obs": obs}, np.arange(6, dtype=np.int32).reshape(2, 3), 0.01)
    assert (np.sign(pi - get_flat(policy.pi_variables)) == np.sign(pi)).all()  # two steps of Adam towards zero


def test_a_loss_is_one_that_others_share():
    """actor_critic_loss reads parameters once, with other losses beside it."""
    policy = ActorCritic(BOX, CHOICE, seed=1, dtype=tf.float64)
    rng = np.random.default_rng(0)
    batch = {"obs": tf.constant(rng.normal(size=(6, 3))), "actions": tf.constant(rng.integers(3, size=6)),
             "advs": tf.constant(rng.normal(size=6)), "returns": tf.constant(rng.normal(size=6))}
    with tf.GradientTape() as tape:
        loss, _ = losses.actor_critic_loss(policy, batch, 0.01, 0.5)
        loss += losses.value_fit(policy, batch)[0]
    assert all(g is not None for g in tape.gradient(loss, policy.trainable_variables))
