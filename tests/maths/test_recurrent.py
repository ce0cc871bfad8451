"""Policies with memory: the cell, sequences with resets inside, and what a rollout stores of them."""

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf

from baselines_lite import evaluate, load
from baselines_lite.common.envs.vec_env import make_vec_env
from baselines_lite.common.networks import builders
from baselines_lite.common.networks.recurrent import Lstm
from baselines_lite.common.policies.actor_critic import ActorCritic
from baselines_lite.common.sampling import collector as collector_module
from baselines_lite.common.sampling.collector import Collector
from baselines_lite.common.sampling.rollout import flatten, sequences
from baselines_lite.common.system.errors import UserError
from baselines_lite.common.system.mpi import Comm
from baselines_lite.ppo2.config import Config

VECTOR, DISCRETE = gym.spaces.Box(-1, 1, (3,)), gym.spaces.Discrete(4)
PICTURE = gym.spaces.Box(0, 255, (40, 40, 1), np.uint8)
SMALL_CNN = dict(convs="4@8/4,4@3/2", num_hidden=16, nlstm=8)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def norm(x, gain, bias):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * gain + bias


@pytest.mark.parametrize("layer_norm", [False, True])
def test_the_cell_by_hand(layer_norm):
    """z = x Wx + h Wh + b in the order i, f, o, u; with layer norm LN(x Wx) + LN(h Wh) + b and tanh(LN(c))."""
    rng, n = np.random.default_rng(0), 5
    cell = Lstm(3, n, rng=rng, layer_norm=layer_norm, dtype=tf.float64)
    for v in cell.trainable_variables:
        v.assign_add(rng.normal(size=v.shape))
    x, before, h = rng.normal(size=(2, 3)), rng.normal(size=(2, n)), rng.normal(size=(2, n))
    zx, zh = x @ cell.wx.numpy(), h @ cell.wh.numpy()
    if layer_norm:
        zx = norm(zx, cell.norm_x.gain.numpy(), cell.norm_x.bias.numpy())
        zh = norm(zh, cell.norm_h.gain.numpy(), cell.norm_h.bias.numpy())
    i, f, o, u = np.split(zx + zh + cell.b.numpy(), 4, axis=-1)
    c = sigmoid(f) * before + sigmoid(i) * np.tanh(u)
    inner = norm(c, cell.norm_c.gain.numpy(), cell.norm_c.bias.numpy()) if layer_norm else c
    expected = sigmoid(o) * np.tanh(inner)
    latent, state = cell.step()(cell.inputs(tf.constant(x)), tf.constant(np.concatenate([before, h], axis=-1)))
    np.testing.assert_allclose(latent, expected, atol=1e-12)
    np.testing.assert_allclose(state, np.concatenate([c, expected], axis=-1), atol=1e-12)


def build(network="lstm", size=3, dtype=tf.float64, **options):
    return builders.build(network, size, rng=np.random.default_rng(1), dtype=dtype, compute=dtype, name="net",
                          options=options)


@pytest.mark.parametrize("network", ["lstm", "lnlstm"])
def test_a_sequence_is_its_steps_with_resets_where_episodes_begin(network):
    net, rng = build(network, nlstm=6), np.random.default_rng(2)
    x, state = rng.normal(size=(4, 9, 3)), rng.normal(size=(4, 12))
    firsts = rng.random((4, 9)) < 0.3
    latents, after = tf.function(net, jit_compile=True)(tf.constant(x), tf.constant(state), tf.constant(firsts))
    for t in range(9):
        state = np.where(firsts[:, t, None], 0.0, state)
        latent, state = net(tf.constant(x[:, t : t + 1]), tf.constant(state), tf.zeros((4, 1), tf.bool))
        np.testing.assert_allclose(latents[:, t], latent[:, 0], atol=1e-12)
    np.testing.assert_allclose(after, state, atol=1e-12)


def test_gradients_go_back_to_the_start_of_the_episode_and_no_further():
    net, rng = build(nlstm=6), np.random.default_rng(3)
    x, state = tf.constant(rng.normal(size=(1, 6, 3))), tf.constant(rng.normal(size=(1, 12)))
    firsts = tf.constant([[False, False, False, True, False, False]])
    with tf.GradientTape() as tape:
        tape.watch([x, state])
        last = tf.reduce_sum(net(x, state, firsts)[0][:, -1])
    to_x, to_state = tape.gradient(last, [x, state], unconnected_gradients=tf.UnconnectedGradients.ZERO)
    influence = np.abs(to_x.numpy()[0]).sum(axis=1)
    assert (influence[:3] == 0).all() and (influence[3:] > 0).all() and not to_state.numpy().any()


def test_sequences_are_runs_of_one_environment():
    array = np.arange(12)[:, None] + 100 * np.arange(3)[None]  # [T, N]: step + 100 environment
    cut = sequences(array, 4)
    assert cut.shape == (9, 4)
    np.testing.assert_array_equal(cut[0], [0, 1, 2, 3])
    np.testing.assert_array_equal(cut[1], [100, 101, 102, 103])
    np.testing.assert_array_equal(cut[5], [204, 205, 206, 207])


def test_sequences_share_out_whatever_the_number_of_environments():
    assert Config(num_env=8, nsteps=128, nminibatches=4).sequence_length() == 128
    assert Config(num_env=1, nsteps=128, nminibatches=4).sequence_length() == 32
    assert Config(num_env=3, nsteps=20, nminibatches=4).sequence_length() == 5
    assert Config(num_env=8, nsteps=128, nminibatches=4, seq_len=16).sequence_length() == 16
    for bad in (dict(seq_len=3), dict(num_env=1, seq_len=64)):
        with pytest.raises(UserError, match="seq_len"):
            Config(**{"num_env": 8, "nsteps": 128, "nminibatches": 4, **bad}).check()


class Short(gym.Env):
    """Random observations; episodes of 3 to 6 steps that die or are cut by turns."""

    def __init__(self, space):
        self.observation_space, self.action_space = space, DISCRETE
        self.episode = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.episode, self.left = self.episode + 1, int(self.np_random.integers(3, 7))
        return self.observation_space.sample(), {}

    def step(self, action):
        self.left -= 1
        dead = self.episode % 2 == 0
        return self.observation_space.sample(), 1.0, self.left == 0 and dead, self.left == 0 and not dead, {}


def collected(network, options, space, value_network, num_env=3, T=24):
    venv = make_vec_env(lambda: Short(space), num_env)
    policy = ActorCritic(space, DISCRETE, network=network, network_options=options, value_network=value_network, seed=0)
    policy.pi_head.w.assign(policy.pi_head.w * 50)
    collector = Collector(venv, policy, T, Comm())
    collector.collect()
    return policy, collector, collector.collect()


@pytest.mark.parametrize("value_network", ["shared", "copy"])
@pytest.mark.parametrize(("network", "options", "space"), [
    ("lstm", {"nlstm": 8}, VECTOR), ("lnlstm", {"nlstm": 8}, VECTOR), ("cnn_lstm", SMALL_CNN, PICTURE),
    ("cnn_lnlstm", SMALL_CNN, PICTURE)])
def test_stored_sequences_give_back_the_rollouts_logp_and_values(network, options, space, value_network):
    policy, _, rollout = collected(network, options, space, value_network)
    assert rollout.firsts[1:].any(axis=0).all() and np.abs(rollout.states).max() > 0
    for length in (24, 8, 1):
        starts = flatten(rollout.states[::length])
        arrays = [getattr(rollout, name) for name in ("obs", "actions", "firsts", "values")]
        obs, actions, firsts, values, logp = (
            sequences(array, length) for array in [*arrays, policy.logp(rollout.heads, rollout.actions)])
        again, logp_again = policy.values_and_logp(obs, flatten(actions), starts, firsts)
        np.testing.assert_allclose(logp_again, flatten(logp), atol=1e-5)
        np.testing.assert_allclose(again, flatten(values), atol=1e-5)


def test_the_final_observation_is_valued_with_the_memory_before_the_reset(monkeypatch):
    final = {}
    original = collector_module.final_observations
    policy, collector, _ = collected("lstm", {"nlstm": 8}, VECTOR, "shared")

    def keep(infos, rows, space):
        batch = original(infos, rows, space)
        for obs, n in zip(batch, rows, strict=True):
            final.setdefault(int(n), []).append(obs)
        return batch

    monkeypatch.setattr(collector_module, "final_observations", keep)
    rollout = collector.collect()
    cut = rollout.dones & ~rollout.terminated
    assert cut.any()
    for n in range(3):
        for t, obs in zip(np.flatnonzero(cut[:, n]), final.get(n, []), strict=True):
            at = (t, slice(n, n + 1))
            _, _, after, _ = policy.step(rollout.obs[at], rollout.states[at], rollout.firsts[at])
            _, value, _, _ = policy.step(obs[None], after)
            np.testing.assert_allclose(rollout.next_values[t, n], value[0], atol=1e-5)
    inside = ~rollout.dones[:-1]
    np.testing.assert_array_equal(rollout.next_values[:-1][inside], rollout.values[1:][inside])


def test_step_carries_the_memory_and_a_loaded_policy_plays_with_any_number(tmp_path):
    policy, _, rollout = collected("lstm", {"nlstm": 8}, VECTOR, "copy")
    state = rollout.states[0]
    for t in range(24):
        _, values, state, _ = policy.step(rollout.obs[t], state, rollout.firsts[t])
        np.testing.assert_allclose(values, rollout.values[t], atol=1e-5)
    policy.save(str(tmp_path / "m.safetensors"))
    loaded = load(str(tmp_path / "m.safetensors"))
    for number in (1, 5):
        obs = np.zeros((number, 3), np.float32)
        first = loaded.step(obs, deterministic=True)
        assert first[2].shape == (number, 32)  # two networks' c and h of 8
        again = loaded.step(obs, first[2], np.ones(number, bool), deterministic=True)
        np.testing.assert_array_equal(again[1], first[1])
    assert evaluate(loaded, lambda: Short(VECTOR), episodes=7).shape == (7,)


def test_a_memory_may_come_as_numbers_of_any_type():
    """As NumPy makes them by itself, np.zeros(...), or from JSON."""
    policy = ActorCritic(VECTOR, DISCRETE, network="lstm", network_options={"nlstm": 4}, seed=0)
    obs = np.ones((2, 3), np.float32)
    _, _, state, _ = policy.step(obs)
    _, values, after, _ = policy.step(obs, state)
    for same in (state.astype(np.float64), state.tolist()):
        _, again, then, _ = policy.step(obs, same)
        np.testing.assert_array_equal(again, values)
        np.testing.assert_array_equal(then, after)
        assert then.dtype == np.float32
        policy.predict(obs, same)


def test_a_policy_without_memory_returns_the_state_as_it_came():
    policy = ActorCritic(VECTOR, DISCRETE)
    assert policy.step(np.zeros((2, 3), np.float32), state="mine")[2] == "mine"
