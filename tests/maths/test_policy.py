"""Networks and the policy: two backends that agree, initial values, and streams of random numbers."""

import copy
import json
import pickle

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf

from baselines_lite import UserError
from baselines_lite.common.envs.vec_env import stack
from baselines_lite.common.networks.builders import NETWORKS, register
from baselines_lite.common.networks.layers import Activation, Sequential, orthogonal
from baselines_lite.common.networks.observations import brief
from baselines_lite.common.networks.parameters import weights
from baselines_lite.common.policies.actor_critic import ActorCritic
from baselines_lite.common.policies.deterministic_policy import DeterministicPolicy
from baselines_lite.common.policies.q_policy import QPolicy
from baselines_lite.common.system.mpi import Comm
from baselines_lite.common.system.seeding import env_seeds, stream

BOX, DISCRETE = gym.spaces.Box(-1, 1, (3,)), gym.spaces.Discrete(5)


@pytest.mark.parametrize("action_space", [BOX, DISCRETE])
@pytest.mark.parametrize("options", [{}, {"layer_norm": True}, {"activation": "relu", "num_layers": 3},
                                     {"activation": "elu", "num_hidden": 7}])
@pytest.mark.parametrize("rows", [1, 8])
def test_numpy_acting_is_compiled_acting(action_space, options, rows):
    policy = ActorCritic(gym.spaces.Box(-5, 5, (11,)), action_space, network_options=options, seed=3)
    rng = np.random.default_rng(0)
    for variable in policy.trainable_variables:  # away from the initial zeros
        variable.assign_add(rng.normal(scale=0.1, size=variable.shape))
    features = rng.normal(size=(rows, 11)).astype(np.float32)
    given = features.copy()
    noise = policy.pdtype.noise(rng, (rows,))
    for draw in (noise, None):
        numpy, compiled = policy.actor()(features, draw), policy.compiled_actor()(features, draw)
        np.testing.assert_allclose(numpy.actions, compiled.actions, atol=1e-5)
    np.testing.assert_array_equal(features, given)  # acting must not write into the rollout


@pytest.mark.parametrize("name", Activation.FUNCTIONS)
def test_a_network_that_begins_with_an_activation_leaves_its_input_alone(name):
    """Also where a layer of one's own, which gives its input back, comes first; and two activations are both applied.
    """
    class Same:
        def __call__(self, x):
            return x

        def numpy(self):
            return lambda x: x

    def begins(size, *, rng, dtype, name):
        layers = [Same(), Activation("tanh"), Same(), Sequential([Activation("relu")], size)]
        return Sequential([*layers, Activation(activation), Activation("elu")], size)

    activation = name
    register("begins")(begins)
    try:
        policy = ActorCritic(BOX, DISCRETE, network="begins", seed=0)
        features = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
        given = features.copy()
        heads, values = policy.actor()(features, None).heads, policy.values(features)
        np.testing.assert_array_equal(features, given)
        compiled = policy.compiled_actor()(features, None)
        np.testing.assert_allclose(heads, compiled.heads, atol=1e-6)
        np.testing.assert_allclose(values, compiled.values, atol=1e-6)
    finally:
        del NETWORKS["begins"]


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda policy: pickle.loads(pickle.dumps(policy))])
@pytest.mark.parametrize("make", [
    lambda: ActorCritic(BOX, DISCRETE, network="lstm", network_options={"nlstm": 8}, normalize_observations=True),
    lambda: DeterministicPolicy(BOX, BOX, dtype=tf.float64, seed=3), lambda: QPolicy(BOX, DISCRETE, epsilon=0.5)])
def test_a_policy_can_be_copied_and_pickled(make, duplicate, tmp_path):
    """The other draws what the one would have drawn, has the same file, and goes its own way."""
    policy, rng, obs = make(), np.random.default_rng(0), np.ones((8, 3), np.float32)
    policy.info = {"algorithm": "none", "env": "A-v0"}
    if policy.normalize.obs:
        policy.normalize.update_obs(rng.normal(size=(50, 3)), Comm())
    policy.predict(obs)  # and its stream has begun
    for variable in policy.trainable_variables:
        variable.assign_add(rng.normal(scale=0.1, size=variable.shape))
    other = duplicate(policy)
    assert repr(other) == repr(policy) and other.info == policy.info
    actions, kept = other.predict(obs)[0], weights(policy)
    np.testing.assert_array_equal(actions, policy.predict(obs)[0])
    for name, each in {"policy": policy, "other": other}.items():
        each.save(str(tmp_path / name))
    assert (tmp_path / "policy").read_bytes() == (tmp_path / "other").read_bytes()
    before = {path: parameter.numpy() for path, parameter in kept.items()}
    for variable in other.trainable_variables:
        variable.assign_add(tf.ones_like(variable))
    assert all(np.array_equal(before[path], parameter.numpy()) for path, parameter in kept.items())


def test_an_actor_keeps_its_weights_and_step_uses_the_present_ones():
    policy = ActorCritic(BOX, BOX, seed=0)
    obs = np.ones((1, 3), np.float32)
    actor = policy.actor()
    before = actor(obs, None).actions
    policy.pi_head.b.assign_add([1.0, 1.0, 1.0])
    np.testing.assert_array_equal(actor(obs, None).actions, before)
    np.testing.assert_allclose(policy.step(obs, deterministic=True)[0], before + 1, atol=1e-6)


def test_step_returns_value_and_log_probability_of_what_it_drew():
    policy = ActorCritic(BOX, DISCRETE, seed=0)
    obs = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    actions, values, state, logp = policy.step(obs)
    pd, vpred = policy.evaluate(tf.constant(policy.features(obs)))
    assert state is None
    np.testing.assert_allclose(values, vpred, atol=1e-6)
    np.testing.assert_allclose(logp, pd.logp(tf.constant(actions)), atol=1e-6)


def test_a_network_without_a_numpy_backend_acts_compiled():
    class Half(tf.Module):
        out_size = 3

        def __call__(self, x):
            return x * 0.5

    register("half")(lambda size, *, rng, dtype, name: Half())
    try:
        policy = ActorCritic(BOX, DISCRETE, network="half", seed=0)
        actions = policy.step(np.ones((4, 3), np.float32), deterministic=True)[0]
        assert actions.shape == (4,) and not policy.prefers_xla
    finally:
        del NETWORKS["half"]


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (5, 5)])
def test_orthogonal(shape):
    w = orthogonal(np.random.default_rng(0), shape, gain=2.0)
    gram = w @ w.T if shape[0] <= shape[1] else w.T @ w
    np.testing.assert_allclose(gram, 4 * np.eye(min(shape)), atol=1e-12)


def test_weights_come_from_the_seed_alone_and_the_first_policy_is_nearly_uniform():
    first, same, other = (ActorCritic(BOX, DISCRETE, seed=s) for s in (1, 1, 2))
    for a, b in zip(first.trainable_variables, same.trainable_variables):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first.pi_head.w, other.pi_head.w)
    pd, _ = first.evaluate(tf.constant(np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)))
    assert pd.entropy().numpy().min() > 0.999 * np.log(5)


def test_shared_and_copied_value_networks():
    shared, copy = (ActorCritic(BOX, DISCRETE, value_network=v) for v in ("shared", "copy"))
    assert len(list(copy.parameters)) - len(list(shared.parameters)) == 4
    features = tf.ones((2, 3))
    np.testing.assert_allclose(shared.evaluate(features)[1], shared.value(features))


def test_streams_differ_by_seed_rank_and_purpose():
    draws = {stream(*key).integers(2**60) for key in ((0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1))}
    assert len(draws) == 4
    assert stream(0, "a", 1).integers(2**60) == stream(0, "a", 1).integers(2**60)
    assert len({s for rank in range(4) for s in env_seeds(0, rank, 8)}) == 32


def test_discrete_observations_are_one_hot_also_with_a_start():
    policy = ActorCritic(gym.spaces.Discrete(3, start=4), DISCRETE, normalize_observations=True)
    np.testing.assert_array_equal(policy.features(np.array([4, 6])), [[1, 0, 0], [0, 0, 1]])
    assert policy.normalize.obs is None


SPACES = [BOX, gym.spaces.Discrete(3, start=2), gym.spaces.MultiBinary(3), gym.spaces.MultiDiscrete([2, 3]),
          gym.spaces.Dict(a=gym.spaces.Box(-1, 1, (2,)), b=gym.spaces.Discrete(2)),
          gym.spaces.Tuple([gym.spaces.Discrete(2), gym.spaces.Dict(x=gym.spaces.Box(-1, 1, (2, 2)))])]


@pytest.mark.parametrize("network", ["mlp", "lstm"])
@pytest.mark.parametrize("space", SPACES)
def test_one_observation_is_a_batch_of_one(space, network):
    space.seed(0)
    policy = ActorCritic(space, gym.spaces.Box(-9, 2, (2,)), network=network, action_scale=True, logstd_init=3.0)
    obs = [space.sample() for _ in range(3)]
    batch = stack(obs)
    actions, states = policy.predict(batch, deterministic=True)
    again, after = policy.predict(batch, states, [False, True, False], deterministic=True)
    for i, one in enumerate(obs):
        action, state = policy.predict(one, deterministic=True)
        assert policy.action_space.contains(np.float32(action))
        np.testing.assert_allclose(action, actions[i], rtol=1e-5, atol=1e-6)
        action, state = policy.predict(one, state, i == 1, deterministic=True)
        np.testing.assert_allclose(action, again[i], rtol=1e-5, atol=1e-6)
        assert state is None if network == "mlp" else np.allclose(state[0], after[i], atol=1e-6)
    assert all(policy.action_space.contains(np.float32(policy.predict(obs[0])[0])) for _ in range(20))
    for wrong in (None, "x", np.zeros((1, 7, 7)), {"b": 1}, {"a": np.zeros((2, 2)), "b": 1}):
        with pytest.raises(UserError, match=r"an observation must be one of .*, or a batch of them"):
            policy.predict(wrong)


def test_what_nothing_can_be_predicted_of():
    policy = ActorCritic(BOX, DISCRETE, network="lstm")
    batch = np.zeros((3, *BOX.shape))
    state = policy.predict(batch)[1]
    with pytest.raises(UserError, match=r"state must be of 2 observations, not of the shape \(3, "):
        policy.predict(batch[:2], state)
    with pytest.raises(UserError, match=r"firsts must be of 3 observations, not of the shape \(1,\)"):
        policy.predict(batch, state, [True])
    with pytest.raises(UserError, match=r"state must be of 3 observations, not of the shape \(\)"):
        policy.predict(batch, 5)
    with pytest.raises(UserError, match="an observation or the state is not finite"):
        policy.predict(batch, state * np.nan)
    batch[1] = np.nan
    with pytest.raises(UserError, match=r"or a batch of them, \[N, \.\.\.\]; nan is in none"):
        policy.predict(batch, state)
    with pytest.raises(UserError, match="an observation or the state is not finite"), np.errstate(over="ignore"):
        policy.predict(np.full(BOX.shape, 1e300))  # not as float32


PIXELS = gym.spaces.Box(0, 255, (9, 9, 3), np.uint8)
SEEN = gym.spaces.Dict(picture=PIXELS, speed=gym.spaces.Box(-1, 1, (2,)))
BESIDE = {"picture": np.zeros(PIXELS.shape, np.uint8), "speed": [0, 0]}
STRANGE = [  # a space, an observation of it, one with a number that is none of its, and this number
    (BOX, [1, 0, 7], [np.inf, 0, 0], "inf"),
    (SEEN, BESIDE, BESIDE | {"speed": [np.nan, 0]}, "nan at speed"),
    (PIXELS, np.full(PIXELS.shape, 255.0), np.full(PIXELS.shape, 0.5, np.float32), "0.5"),
    (PIXELS, np.full(PIXELS.shape, 255), np.full(PIXELS.shape, 256), "256"),
    (PIXELS, np.ones(PIXELS.shape, bool), np.full(PIXELS.shape, np.nan), "nan"),
    (DISCRETE, 4, 5, "5"),
    (DISCRETE, 3.0, -1, "-1"),
    (gym.spaces.Discrete(3, start=-2), np.int8(-2), 1, "1"),
    (gym.spaces.MultiDiscrete([3, 4]), [2, 3], [5, 0], "5"),
    (gym.spaces.MultiDiscrete([3, 4], np.uint8, start=[1, 2]), [3, 5], [3, 1], "1"),
    (gym.spaces.MultiBinary(2), [True, False], [0, 2], "2"),
    (gym.spaces.Tuple([DISCRETE, BOX]), (1, [0.1, 0.2, 0.3]), (1.5, [0.1, 0.2, 0.3]), "1.5 at 0"),
]


@pytest.mark.parametrize(("space", "right", "wrong", "number"), STRANGE)
def test_numbers_that_are_none_of_the_space_are_refused(space, right, wrong, number):
    """One at a time and in a batch; of the right ones it is no matter in which type they come."""
    picture = {"network": "cnn", "network_options": {"convs": "2@4/2", "num_hidden": 3}}
    normalized = {"network_options": {"num_hidden": 3}, "normalize_observations": True}
    policy = ActorCritic(space, DISCRETE, **(picture if space in (PIXELS, SEEN) else normalized))
    assert policy.predict(right)[0] in range(5)
    for obs in (wrong, stack([right, wrong])):
        with pytest.raises(UserError, match=rf"\]; {number}(\.0)? is in none$"):
            policy.predict(obs)


def test_what_is_printed_of_a_policy():
    policy = ActorCritic(BOX, gym.spaces.Discrete(2), network_options={"num_hidden": 5}, seed=0)
    count = sum(w.numpy().size for w in weights(policy).values())
    policy.info = {"config": {"gamma": 0.5}}
    assert json.loads(json.dumps([policy.info, policy.settings, policy.network_options]))[0] == policy.info
    policy.info = {}
    assert repr(policy) == (f"<ActorCritic: {brief(BOX)} -> Discrete(2), network=mlp, value_network=copy, "
                            f"num_hidden=5, {count} parameters>")
