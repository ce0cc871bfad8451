"""ACER's formulas against what the paper says of them, in float64, and its store of segments against plain copies."""

import csv

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf
from scipy.optimize import minimize

from baselines_lite import UserError, load
from baselines_lite.acer import acer
from baselines_lite.acer.config import Config
from baselines_lite.acer.replay import Ends, Replay, Segments, restack, segments_of, unstack
from baselines_lite.common.envs.vec_env import make_vec_env
from baselines_lite.common.networks.flat import flatten, get_flat, set_flat
from baselines_lite.common.optim.mpi_rmsprop import MpiRmsProp
from baselines_lite.common.policies.actor_q import ActorQ
from baselines_lite.common.sampling.collector import Collector
from baselines_lite.common.system.mpi import Comm
from tests.maths.test_recurrent import Short

VECTOR, CHOICE = gym.spaces.Box(-1, 1, (3,)), gym.spaces.Discrete(4)
K = 4


def log_softmax(x):
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def distributions(rng, *shape, scale=2.0):
    return log_softmax(rng.normal(scale=scale, size=(*shape, K)))


# The formulas

@pytest.mark.parametrize("c", [0.1, 1.0, 10.0, 1e9])
def test_truncation_and_its_correction_leave_the_mean_of_any_function(c):
    """sum_a mu_a min(c, rho_a) h_a + sum_a f_a [1 - c / rho_a]_+ h_a = sum_a f_a h_a, also action by action."""
    rng = np.random.default_rng(0)
    log_f, log_mu = distributions(rng, 50, scale=4.0), distributions(rng, 50, scale=4.0)
    h = rng.normal(size=(50, K))
    mean = np.zeros((50, K))
    for a in range(K):
        taken = np.tile(np.eye(K)[a], (50, 1))
        g = acer.truncated_gradient(*map(tf.constant, (log_f, log_mu, taken, h[:, a], h)), c)
        mean += np.exp(log_mu[:, a, None]) * np.exp(log_f) * g
    np.testing.assert_allclose(mean, np.exp(log_f) * h, atol=1e-13)


def test_on_policy_nothing_is_truncated():
    rng = np.random.default_rng(1)
    log_f, taken, h = distributions(rng, 30), np.eye(K)[rng.integers(K, size=30)], rng.normal(size=(30, K))
    advs = rng.normal(size=30)
    g = acer.truncated_gradient(*map(tf.constant, (log_f, log_f, taken, advs, h)), 1.0).numpy()
    np.testing.assert_allclose(g, taken * np.exp(-log_f) * advs[:, None], rtol=1e-12)  # advs grad_f log f_a, no more


def test_vanishing_probabilities_give_numbers():
    log_f = np.array([[0.0, -200.0, -1.0], [-200.0, 0.0, -1.0], [0.0, -1.0, -200.0]], np.float32)
    log_mu = np.array([[0.0, -1.0, -200.0], [-2.0, 0.0, -200.0], [0.0, -300.0, -1.0]], np.float32)
    taken = np.eye(3, dtype=np.float32)[[0, 0, 2]]
    g = acer.truncated_gradient(*map(tf.constant, (log_f, log_mu, taken, np.ones(3, np.float32),
                                                   np.ones((3, 3), np.float32))), 10.0).numpy()
    assert np.isfinite(g).all() and g[0, 2] == 1.0 and g[0, 1] == 0.0


def test_retrace_is_the_sum_of_products_up_to_the_episodes_end():
    """Q_ret_t = Q_t + sum_{s >= t} gamma^(s-t) min(1, rho_{t+1}) ... min(1, rho_s) delta_s, within the episode."""
    rng, B, T, gamma = np.random.default_rng(2), 6, 12, 0.9
    rewards, q, next_values = rng.normal(size=(3, B, T))
    rho = np.exp(rng.normal(size=(B, T)))
    dones = rng.random((B, T)) < 0.25
    terminated = dones & (rng.random((B, T)) < 0.5)
    dones[0], terminated[0] = False, False  # one that goes on throughout
    assert (dones & ~terminated).any() and terminated.any()
    delta = rewards + gamma * np.where(terminated, 0.0, next_values) - q
    expected = q.copy()
    for b in range(B):
        for t in range(T):
            weight = 1.0
            for s in range(t, T):
                expected[b, t] += weight * delta[b, s]
                if dones[b, s] or s == T - 1:
                    break
                weight *= gamma * min(1.0, rho[b, s + 1])
    found = acer.retrace(*map(tf.constant, (rewards, q, next_values, rho, terminated, dones)), gamma)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_retrace_is_the_recursion_that_the_paper_writes():
    """Q_ret <- r + gamma Q_ret; then Q_ret <- min(1, rho) (Q_ret - Q) + V; from V of what followed the last step."""
    rng, T, gamma = np.random.default_rng(3), 7, 0.9
    rewards, q, values, rho = rng.normal(size=(4, T))
    rho, last, none = np.exp(rho), 0.7, np.zeros((1, T), bool)
    expected, q_ret = np.empty(T), last
    for t in reversed(range(T)):
        expected[t] = rewards[t] + gamma * q_ret
        q_ret = min(1.0, rho[t]) * (expected[t] - q[t]) + values[t]
    next_values = np.append(values[1:], last)
    found = acer.retrace(*(tf.constant(x[None]) for x in (rewards, q, next_values, rho)), none, none, gamma)
    np.testing.assert_allclose(found[0], expected, atol=1e-12)


def test_the_projection_solves_its_quadratic_program():
    rng = np.random.default_rng(4)
    g, k = rng.normal(size=(2, 40, K))
    z = acer.project(tf.constant(g), tf.constant(k), 0.5).numpy()
    active = (g * k).sum(axis=1) > 0.5
    assert 5 < active.sum() < 35
    np.testing.assert_array_equal(z[~active], g[~active])
    np.testing.assert_allclose((z * k).sum(axis=1)[active], 0.5, atol=1e-12)
    moved = g - z
    np.testing.assert_allclose(moved * (k * k).sum(axis=1)[:, None], (moved * k).sum(axis=1)[:, None] * k, atol=1e-12)
    for i in range(40):
        within = {"type": "ineq", "fun": lambda x, i=i: 0.5 - x @ k[i], "jac": lambda x, i=i: -k[i]}
        solved = minimize(lambda x, i=i: 0.5 * np.square(x - g[i]).sum(), g[i], jac=lambda x, i=i: x - g[i], tol=1e-12,
                          constraints=within)
        np.testing.assert_allclose(z[i], solved.x, atol=1e-6)


# An update

def batch_of(rng, B=3, T=6, dtype=np.float64):
    dones = rng.random((B, T)) < 0.3
    terminated = dones & (rng.random((B, T)) < 0.5)
    segments, steps = np.nonzero(dones & ~terminated)
    data = {"obs": rng.normal(size=(B, T + 1, 3)).astype(dtype), "actions": rng.integers(K, size=(B, T)),
            "rewards": rng.normal(size=(B, T)), "terminated": terminated, "dones": dones,
            "log_mu": distributions(rng, B, T)}
    return Segments(data, Ends(segments, steps, rng.normal(size=(len(steps), 3)).astype(dtype),
                               np.empty((len(steps), 0))))


def policy_of(rng=None, hidden=5, **options):
    policy = ActorQ(VECTOR, CHOICE, seed=0, dtype=tf.float64, network_options={"num_hidden": hidden}, **options)
    for v in policy.trainable_variables if rng is not None else ():
        v.assign_add(rng.normal(scale=0.5, size=v.shape))
    return policy


def updater(policy, cfg, comm=None):
    return acer.Update(policy, MpiRmsProp(policy.trainable_variables, comm or Comm(), max_grad_norm=cfg.max_grad_norm),
                       cfg)


@pytest.mark.parametrize("trust_region", [True, False])
def test_the_gradient_by_automatic_differentiation_of_the_papers_objectives(trust_region):
    """Baselines' way: g and k are gradients by f of what the paper writes; z goes back through f to theta."""
    rng, cfg = np.random.default_rng(5), Config(c=1.5, delta=0.1, ent_coef=0.05, gamma=0.9, trust_region=trust_region)
    policy, average = (policy_of(rng, value_network="shared") for _ in range(2))
    segments = batch_of(rng)
    update = updater(policy, cfg)
    set_flat(update.average.trainable_variables, get_flat(average.trainable_variables))
    batch = {name: tf.constant(x) for name, x in segments.data.items()}
    end_values = update._end_values(segments)
    np.testing.assert_allclose(end_values[segments.ends.segments, segments.ends.steps],
                               policy.evaluate(segments.ends.obs)[1])
    g, stats = update.gradient(batch | {"end_values": end_values})
    found = flatten(g)

    flat_obs, B, T = tf.reshape(batch["obs"], [-1, 3]), *segments.data["dones"].shape
    f_average = tf.reshape(tf.exp(average.evaluate(flat_obs)[0].log_probs), [B, T + 1, K])[:, :-1]
    with tf.GradientTape(persistent=True) as tape:
        f = tf.reshape(tf.nn.softmax(policy.pi_head(policy.pi_net(flat_obs))), [B, T + 1, K])
        q = tf.reshape(policy.vf_head(policy.vf_net(flat_obs)), [B, T + 1, K])
        values = tf.stop_gradient(tf.reduce_sum(f * q, axis=-1)).numpy()
        next_values = np.where(segments.data["dones"], end_values, values[:, 1:])
        f, q, values = f[:, :-1], q[:, :-1], values[:, :-1]
        tape.watch(f)
        mu = np.exp(segments.data["log_mu"])
        rho_a, q_a, f_a = (tf.gather(x, batch["actions"], batch_dims=2) for x in (f / mu, q, f))
        ends = (batch["terminated"], batch["dones"])
        q_ret = acer.retrace(batch["rewards"], q_a, next_values, rho_a, *ends, 0.9).numpy()
        gain = tf.math.log(f_a) * ((q_ret - values) * np.minimum(1.5, rho_a)) + tf.reduce_sum(
            tf.math.log(f) * ((q - values[..., None]) * np.maximum(0, 1 - 1.5 / (f / mu)) * f).numpy(), axis=-1)
        entropy = -tf.reduce_sum(f * tf.math.log(f), axis=-1)
        kl = tf.reduce_sum(f_average * tf.math.log(f_average / f), axis=-1)
        objective = gain + 0.05 * entropy
        value_loss = 0.5 * tf.reduce_mean(tf.square(q_ret - q_a))
    g, k = tape.gradient(objective, f), tape.gradient(kl, f)
    excess = np.maximum(0, ((k * g).numpy().sum(axis=-1) - 0.1) / np.square(k).sum(axis=-1))
    assert 0.1 < (excess > 0).mean() < 0.9
    z = g - excess[..., None] * k if trust_region else g
    expected = np.zeros(0)
    for v in policy.trainable_variables:
        to_pi = tape.gradient(f, v, output_gradients=-z / (B * T), unconnected_gradients="zero")
        to_q = tape.gradient(value_loss, v, unconnected_gradients="zero")
        expected = np.append(expected, (to_pi + cfg.q_coef * to_q).numpy())
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)  # k has a 1e-6 in it
    stats = dict(zip(acer.FIGURES, stats.numpy(), strict=True))
    for name, value in {"policy_loss": -gain, "value_loss": value_loss, "entropy": entropy, "kl_average": kl,
                        "truncated": rho_a > 1.5, "rho": np.minimum(rho_a, 1.5), "constrained": excess > 0}.items():
        assert stats[name] == pytest.approx(np.mean(value), rel=1e-5), name
    assert stats["explained_variance"] == pytest.approx(1 - np.var(q_ret - q_a) / np.var(q_ret))


def test_the_average_policy_follows_every_update():
    rng = np.random.default_rng(6)
    policy = policy_of(rng)
    update, segments = updater(policy, Config(alpha=0.8)), batch_of(rng)
    average = get_flat(policy.trainable_variables)
    for _ in range(3):
        assert np.isfinite(update(segments, 1e-2)).all()
        average = 0.8 * average + 0.2 * get_flat(policy.trainable_variables)
    np.testing.assert_allclose(get_flat(update.average.trainable_variables), average, rtol=1e-12)
    assert not np.allclose(average, get_flat(policy.trainable_variables))


def test_a_time_limit_is_valued_by_the_present_policy_and_a_death_is_not():
    """Raising V at the final observations raises the targets before them, of no other step."""
    rng, cfg = np.random.default_rng(7), Config(gamma=0.9)
    policy, segments = policy_of(rng, value_network="copy"), batch_of(rng)
    before = updater(policy, cfg)._end_values(segments)
    policy.vf_head.b.assign_add([1.0] * K)
    after = updater(policy, cfg)._end_values(segments)
    cut = segments.data["dones"] & ~segments.data["terminated"]
    np.testing.assert_allclose(after - before, cut.astype(float), atol=1e-12)


# The policy

def test_v_is_the_mean_of_q_over_the_policy():
    policy, obs = policy_of(np.random.default_rng(8)), np.random.default_rng(9).normal(size=(7, 3))
    log_pi, q = policy.log_pi_and_q(tf.constant(obs))
    pd, values = policy.evaluate(tf.constant(obs))
    np.testing.assert_allclose(values, (np.exp(log_pi) * q).numpy().sum(axis=1), atol=1e-12)
    np.testing.assert_allclose(pd.log_probs, log_pi, atol=1e-12)
    np.testing.assert_allclose(policy.log_probs(policy.compiled_actor()(obs, None).heads), log_pi, atol=1e-12)
    assert policy.vf_head.w.shape[1] == K and np.ptp(q, axis=1).min() > 0


def test_a_model_file_gives_it_back(tmp_path):
    policy = ActorQ(VECTOR, CHOICE, network="lstm", network_options={"nlstm": 6}, value_network="shared", seed=3)
    policy.save(str(tmp_path / "m"))
    loaded, obs = load(str(tmp_path / "m")), np.random.default_rng(0).normal(size=(5, 3))
    assert type(loaded) is ActorQ
    for mine, theirs in zip(policy.step(obs, deterministic=True), loaded.step(obs, deterministic=True), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("space", [gym.spaces.Box(-1, 1, (2,)), gym.spaces.MultiDiscrete([2, 2])])
def test_other_actions_are_refused(space):
    with pytest.raises(UserError, match="supported is Discrete"):
        ActorQ(VECTOR, space)


# The store

def plain_stacks(rng, B, L, k, fresh):
    """What a frame stack shows of random frames: black before a game's first frame."""
    obs = np.zeros((B, L, 5, 4, k), np.uint8)
    for b in range(B):
        history = [np.zeros((5, 4), np.uint8)] * k
        for t in range(-rng.integers(2 * k), L):  # the segment begins inside a game
            if t >= 0 and fresh[b, t]:
                history = [np.zeros((5, 4), np.uint8)] * k
            history = [*history[1:], rng.integers(256, size=(5, 4), dtype=np.uint8)]
            if t >= 0:
                obs[b, t] = np.stack(history, axis=-1)
    return obs


@pytest.mark.parametrize("k", [2, 3, 4])
def test_stacks_come_back_whatever_the_games_ends(k):
    rng, L = np.random.default_rng(k), 7
    every = (np.arange(2**L)[:, None] >> np.arange(L) & 1).astype(bool)  # games begin at every set of positions
    obs = plain_stacks(rng, len(every), L, k, every)
    frames, ages = unstack(obs)
    assert frames.shape == (2**L, k - 1 + L, 5, 4)
    np.testing.assert_array_equal(restack(frames, ages), obs)


def test_black_and_standing_pictures_come_back():
    rng = np.random.default_rng(0)
    obs = np.zeros((3, 6, 5, 4, 3), np.uint8)
    obs[1] = rng.integers(256, size=(1, 5, 4, 1))
    obs[2, 4:, ..., 2], obs[2, 5, ..., 1] = 7, 7
    np.testing.assert_array_equal(restack(*unstack(obs)), obs)


def test_pictures_that_are_no_stack_are_not_taken_for_one():
    obs = np.random.default_rng(0).integers(256, size=(2, 5, 5, 4, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match="neither moves on"):
        unstack(obs)


def collected(network, count, cut_is_death=False, values=True, **options):
    policy = ActorQ(VECTOR, CHOICE, network=network, seed=0, **options)
    policy.pi_head.w.assign(policy.pi_head.w * 50)
    collector = Collector(make_vec_env(lambda: Short(VECTOR), 3), policy, 8, Comm(), cut_is_death=cut_is_death,
                          values=values)
    return policy, [collector.collect() for _ in range(count)]


@pytest.mark.parametrize(("network", "value_network", "normalized"), [
    ("mlp", "copy", False), ("mlp", "shared", True), ("lstm", "shared", False), ("lstm", "copy", True)])
def test_segments_give_back_what_the_policy_thought(network, value_network, normalized):
    """log mu, and V of what followed each step, from features and the memory at the segment's start alone.

    Features are of the statistics by which the policy acted, whatever these have become.
    """
    policy, rollouts = collected(network, 5, value_network=value_network, normalize_observations=normalized)
    assert normalized == (policy.normalize.obs is not None)
    update = updater(policy, Config())
    for rollout in rollouts:
        segments = segments_of(policy, rollout)
        data = segments.data
        log_pi, q = (x.numpy() for x in acer.outputs(policy, {name: tf.constant(x) for name, x in data.items()}))
        np.testing.assert_allclose(log_pi[:, :-1], data["log_mu"], atol=1e-5)
        taken = np.take_along_axis(data["log_mu"], data["actions"][..., None], axis=-1)[..., 0]
        np.testing.assert_allclose(taken, policy.logp(rollout.heads, rollout.actions).T, atol=1e-5)
        cut, values = data["dones"] & ~data["terminated"], (np.exp(log_pi) * q).sum(axis=-1)
        followed = np.where(cut, update._end_values(segments), values[:, 1:])
        alive = ~data["terminated"]
        np.testing.assert_allclose(followed[alive], rollout.next_values.T[alive], atol=1e-5)
    assert sum(rollout.dones.sum() - rollout.terminated.sum() for rollout in rollouts) > 3


def test_every_environment_draws_from_its_own_ring():
    policy, rollouts = collected("lstm", 7)
    found = [segments_of(policy, rollout) for rollout in rollouts]
    buffer, rng = Replay(policy, buffer_size=3 * 8 + 5, num_env=3, nsteps=8), np.random.default_rng(0)
    for i, segments in enumerate(found):
        buffer.put(segments)
        assert len(buffer) == 8 * min(i + 1, 3)
    assert buffer.nbytes == sum(ring.nbytes for ring in buffer._rings.values())
    seen = set()
    for _ in range(60):
        drawn = buffer.draw(rng)
        for n in range(3):
            same = [i for i, s in enumerate(found) if np.array_equal(s.data["obs"][n], drawn.data["obs"][n])]
            assert len(same) == 1 and same[0] >= 4  # of the latest three
            seen.add((n, same[0]))
            kept = found[same[0]]
            for name, array in kept.data.items():
                np.testing.assert_array_equal(drawn.data[name][n], array[n], err_msg=name)
            for name in ("steps", "obs", "states"):
                np.testing.assert_array_equal(getattr(drawn.ends, name)[drawn.ends.segments == n],
                                              getattr(kept.ends, name)[kept.ends.segments == n], err_msg=name)
    assert len(seen) == 9


def test_a_buffer_that_memory_cannot_hold_is_refused_before_training(monkeypatch, tmp_path):
    options = dict(num_env=2, nsteps=8, log_path=str(tmp_path / "log"), print_interval=1e9)
    with pytest.raises(UserError, match=r"needs \d+\.\d GB here"):
        acer.learn("CartPole-v1", 64, buffer_size=10**11, replay_start=8, **options)
    assert not (tmp_path / "log").exists()


def test_time_limits_can_be_taken_for_deaths():
    policy, (rollout,) = collected("mlp", 1, cut_is_death=True)
    segments = segments_of(policy, rollout)
    np.testing.assert_array_equal(segments.data["terminated"], rollout.dones.T)
    assert not len(segments.ends.steps)
    _, (other,) = collected("mlp", 1)
    np.testing.assert_array_equal(rollout.dones, other.dones)
    assert (other.dones & ~other.terminated).any()


@pytest.mark.parametrize("network", ["mlp", "lstm"])
def test_nothing_is_valued_while_collecting(network, monkeypatch):
    """But the final observations of cut episodes, with each update; the rest of a rollout is as ever."""
    found = [collected(network, 3, values=values)[1] for values in (True, False)]
    for one, other in zip(*found, strict=True):
        assert np.isfinite(one.values).all() and np.isnan([other.values, other.next_values]).all()
        for name in ("obs", "actions", "rewards", "terminated", "dones", "heads", "firsts", "next_obs", "next_states"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    valued, values = [], ActorQ.values
    monkeypatch.setattr(ActorQ, "values", lambda self, *given: valued.append(len(given[0])) or values(self, *given))
    acer.learn(lambda: Short(VECTOR), 8 * 2 * 6, num_env=2, nsteps=8, replay_start=0, buffer_size=80, network=network,
               print_interval=1e9)
    assert 0 < max(valued) < 2 * 8 / 2


@pytest.mark.parametrize("ratio", [0.0, 3.0])
def test_as_many_batches_are_replayed_as_the_ratio_says_once_there_is_enough(ratio, tmp_path, monkeypatch):
    from baselines_lite import acer as package

    updates, update = [], acer.Update.__call__
    monkeypatch.setattr(acer.Update, "__call__", lambda *given: updates.append(1) or update(*given))
    package.learn("CartPole-v1", 100 * 16, num_env=2, nsteps=8, replay_start=80, buffer_size=160, replay_ratio=ratio,
                  log_path=str(tmp_path), log_interval=1, print_interval=1e9)
    with (tmp_path / "progress.csv").open(newline="") as file:
        replays = [float(row["replays"]) for row in csv.DictReader(file)]
    assert replays[:9] == [0] * 9  # of 8 steps of each environment
    assert abs(np.mean(replays[9:]) - ratio) <= 4 * np.sqrt(ratio / 91)  # four deviations of a Poisson mean
    assert len(updates) == 100 + sum(replays)


def test_a_budget_in_which_nothing_would_be_replayed_is_refused():
    config = Config(num_env=4, replay_start=100)
    config.check_budget(800, ranks=2)  # the last update replays
    with pytest.raises(UserError, match=r"would replay nothing: .* replay_start=100 .* 800 of all"):
        config.check_budget(799, ranks=2)
    Config(replay_ratio=0).check_budget(1, ranks=1)


@pytest.mark.parametrize("options", [dict(buffer_size=19), dict(buffer_size=100, replay_start=101)])
def test_a_buffer_that_never_fills_enough_is_refused(options):
    with pytest.raises(UserError, match="must keep some"):
        Config(**{"replay_start": 0, **options}).check()
