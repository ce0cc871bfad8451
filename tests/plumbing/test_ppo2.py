"""PPO2's update: compiled against step by step, against the policy gradient, and its early stop."""

import csv
import dataclasses

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf

from baselines_lite import ppo2
from baselines_lite.common.networks.flat import flat_gradient, get_flat, set_flat
from baselines_lite.common.optim.mpi_adam import MpiAdam
from baselines_lite.common.policies.actor_critic import ActorCritic
from baselines_lite.common.sampling.returns import gae
from baselines_lite.common.sampling.rollout import Rollout
from baselines_lite.common.system.mpi import Comm
from baselines_lite.ppo2.config import Config
from baselines_lite.ppo2.ppo2 import STATS, Update, loss_and_stats

T, N, D = 8, 4, 3
BOX = gym.spaces.Box(-1, 1, (D,))


class TwoAlike(Comm):
    """Two ranks with the same data: takes the path of several ranks, means are what they were."""

    size = 2


def setting(cfg, action_space=BOX, seed=0, comm=None):
    policy = ActorCritic(BOX, action_space, seed=seed, dtype=tf.float64, value_network=cfg.value_network)
    comm = comm or Comm()
    adam = MpiAdam(policy.trainable_variables, comm, epsilon=cfg.adam_epsilon, max_grad_norm=cfg.max_grad_norm)
    return policy, adam, Update(policy, adam, cfg, comm, np.random.default_rng(7))


def data(policy, seed=0):
    rng = np.random.default_rng(seed)
    obs = rng.normal(size=(T, N, D))
    actions = (rng.integers(policy.pdtype.head_size, size=(T, N)) if not policy.pdtype.has_logstd
               else rng.normal(size=(T, N, D)))
    advs, returns = rng.normal(size=(2, T, N))
    acted = policy.compiled_actor()(obs.reshape(-1, D), None)
    values, heads = acted.values.reshape(T, N), acted.heads.reshape(T, N, -1)
    none = np.zeros((T, N), bool)
    rollout = Rollout(obs, actions, advs, none, none, values, values, heads, [], 0.0, 0.0)
    return rollout, advs, returns


def plain_update(policy, cfg, rollout, advs, returns, indices):
    """The same update written out in NumPy and eager gradients, one minibatch after the other."""
    variables, m, v = list(policy.trainable_variables), 0.0, 0.0
    flat = {"obs": rollout.obs, "actions": rollout.actions, "returns": returns, "values": rollout.values,
            "logp": policy.logp(rollout.heads, rollout.actions), "advs": advs}
    flat = {k: a.reshape(-1, *a.shape[2:]) for k, a in flat.items()}
    lr, clip = cfg.lr(1.0), cfg.cliprange(1.0)
    for t, rows in enumerate(indices, 1):
        b = {k: a[rows] for k, a in flat.items()}
        adv = (b["advs"] - b["advs"].mean()) / (b["advs"].std() + 1e-8)
        with tf.GradientTape() as tape:
            pd, vpred = policy.evaluate(tf.constant(b["obs"]))
            ratio = tf.exp(pd.logp(tf.constant(b["actions"])) - b["logp"])
            pg = tf.reduce_mean(tf.maximum(-adv * ratio, -adv * tf.clip_by_value(ratio, 1 - clip, 1 + clip)))
            error = tf.square(vpred - b["returns"])
            if cfg.cliprange_vf is not None:
                c = cfg.cliprange_vf(1.0)
                near = b["values"] + tf.clip_by_value(vpred - b["values"], -c, c)
                error = tf.maximum(error, tf.square(near - b["returns"]))
            loss = pg - cfg.ent_coef * tf.reduce_mean(pd.entropy()) + cfg.vf_coef * 0.5 * tf.reduce_mean(error)
        g = np.concatenate([x.numpy().ravel() for x in tape.gradient(loss, variables)])
        g *= min(1.0, cfg.max_grad_norm / np.linalg.norm(g))
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        step = lr * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v) + cfg.adam_epsilon)
        for variable in variables:
            part, step = step[: tf.size(variable)], step[tf.size(variable) :]
            variable.assign_sub(part.reshape(variable.shape))


@pytest.mark.parametrize("action_space", [BOX, gym.spaces.Discrete(4)])
@pytest.mark.parametrize("options", [{}, {"value_network": "shared"}, {"cliprange_vf": Config.cliprange}])
def test_compiled_update_is_the_step_by_step_one(action_space, options):
    cfg = Config(nminibatches=4, noptepochs=3, ent_coef=0.01, max_grad_norm=0.05, **options)
    policy, _, update = setting(cfg, action_space)
    indices = update.shuffle(T * N)
    update.shuffle = lambda nbatch: indices
    assert sorted(indices[:4].ravel()) == list(range(T * N))  # each epoch visits every sample once
    rollout, advs, returns = data(policy)
    twin, _, per_call = setting(cfg, action_space, comm=TwoAlike())
    third, _, _ = setting(cfg, action_space)
    stats = update(rollout, advs, returns, 1.0)
    per_call.shuffle = update.shuffle
    assert per_call(rollout, advs, returns, 1.0) == pytest.approx(stats, rel=1e-9)
    plain_update(third, cfg, rollout, advs, returns, indices)
    for other in (twin, third):
        np.testing.assert_allclose(get_flat(policy.trainable_variables), get_flat(other.trainable_variables),
                                   rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("comm", [Comm(), TwoAlike()])
def test_advantages_found_anew_before_each_epoch(comm):
    """Three epochs are three updates of one epoch, with advantages by the value function that the last one left."""
    cfg = Config(nminibatches=4, noptepochs=3, recompute_advs=True, cliprange_vf=Config.cliprange)
    policy, _, update = setting(cfg, comm=comm)
    twin, _, one = setting(dataclasses.replace(cfg, noptepochs=1, recompute_advs=False))
    indices = update.shuffle(T * N)
    update.shuffle = lambda _: indices
    rollout, _, _ = data(policy)
    rollout.next_obs = np.random.default_rng(1).normal(size=(T, N, D))
    acted = twin.logp(rollout.heads, rollout.actions)
    twin.logp = lambda *_: acted  # and not by the logstd that an epoch leaves
    stats = update(rollout, *gae(rollout, cfg.gamma, cfg.lam), 1.0)
    losses = []
    for part in np.split(indices, 3):
        one.shuffle = lambda _, part=part: part
        losses.append(one(rollout, *gae(rollout, cfg.gamma, cfg.lam), 1.0)["value_loss"])
        rollout.values = twin.values(rollout.obs.reshape(-1, D)).reshape(T, N)
        rollout.next_values = twin.values(rollout.next_obs.reshape(-1, D)).reshape(T, N)
    np.testing.assert_allclose(get_flat(policy.trainable_variables), get_flat(twin.trainable_variables), rtol=1e-9,
                               atol=1e-12)
    assert stats["value_loss"] == pytest.approx(np.mean(losses)) and stats["cliprange"] == 0.2


def test_ranks_that_step_alone_and_meet_after_each_epoch():
    """With a rank whose numbers are other ones, known beforehand: what each then has is their mean, moments too."""
    cfg = Config(nminibatches=4, noptepochs=3, sync="epoch", adv_moments="rank")

    class WithAnother(TwoAlike):
        """The other rank's parameters and moments are a tenth larger, and its figures."""

        def mean(self, array):
            return 1.05 * array

    policy, adam, _ = setting(cfg)
    update = Update(policy, adam, cfg, WithAnother(), np.random.default_rng(7))
    twin, same_adam, alone = setting(dataclasses.replace(cfg, noptepochs=1, sync="step"))
    indices = update.shuffle(T * N)
    update.shuffle = lambda _: indices
    rollout, advs, returns = data(policy)
    acted = twin.logp(rollout.heads, rollout.actions)
    twin.logp = lambda *_: acted  # and not by the logstd that an epoch leaves
    stats, figures = update(rollout, advs, returns, 1.0), []
    for part in np.split(indices, 3):
        alone.shuffle = lambda _, part=part: part
        figures.append(alone(rollout, advs, returns, 1.0)["entropy"])
        for variables in (twin.trainable_variables, same_adam.m, same_adam.v, [same_adam.t]):
            set_flat(variables, 1.05 * get_flat(variables))
    for ours, theirs in ((policy.trainable_variables, twin.trainable_variables), (adam.m, same_adam.m),
                         (adam.v, same_adam.v)):
        np.testing.assert_allclose(get_flat(ours), get_flat(theirs), rtol=1e-9, atol=1e-12)
    assert stats["entropy"] == pytest.approx(1.05 * np.mean(figures))


def test_first_minibatch_has_ratio_one():
    cfg = Config(nminibatches=1, noptepochs=1)
    policy, _, update = setting(cfg)
    stats = update(*data(policy), 1.0)
    assert stats["clipfrac"] == 0 and abs(stats["approxkl"]) < 1e-12


def test_gradient_at_the_old_parameters_is_the_policy_gradient():
    """One epoch, one minibatch, no value clip: the a2c gradient, mean of A grad log pi, with standardised A."""
    cfg = Config(nminibatches=1, noptepochs=1, ent_coef=0.02)
    policy, _, _ = setting(cfg)
    rollout, advs, returns = data(policy)
    names = {"obs": rollout.obs, "actions": rollout.actions, "advs": advs, "returns": returns,
             "values": rollout.values, "logp": policy.logp(rollout.heads, rollout.actions)}
    batch = {k: tf.constant(a.reshape(-1, *a.shape[2:])) for k, a in names.items()}
    batch |= {"mean": tf.constant(0.0, tf.float64), "std": tf.constant(1.0, tf.float64)}
    clip = tf.constant(0.2, tf.float64)
    with tf.GradientTape() as tape:
        loss, _ = loss_and_stats(policy, cfg, batch, clip, clip)
    ppo = flat_gradient(tape, loss, policy.trainable_variables)
    with tf.GradientTape() as tape:
        pd, vpred = policy.evaluate(batch["obs"])
        loss = (-tf.reduce_mean(batch["advs"] * pd.logp(batch["actions"])) - 0.02 * tf.reduce_mean(pd.entropy())
                + 0.5 * tf.reduce_mean(0.5 * tf.square(vpred - batch["returns"])))
    np.testing.assert_allclose(ppo, flat_gradient(tape, loss, policy.trainable_variables), atol=1e-12)


@pytest.mark.parametrize("comm", [Comm(), TwoAlike()])
def test_target_kl_stops_before_the_step_that_would_follow(comm):
    cfg = Config(nminibatches=2, noptepochs=20, lr=Config.lr.__class__("0.05"), target_kl=0.01)
    policy, adam, update = setting(cfg, comm=comm)
    update(*data(policy), 1.0)
    assert 1 <= adam.t.numpy() < 40


@pytest.mark.parametrize("comm", [Comm(), TwoAlike()])
def test_target_kl_ends_the_update_with_advantages_found_anew_too(comm):
    cfg = Config(nminibatches=4, noptepochs=10, lr=Config.lr.__class__("1e-3"), target_kl=0.01, recompute_advs=True)
    policy, adam, update = setting(cfg, comm=comm)
    rollout, advs, returns = data(policy)
    rollout.next_obs = np.random.default_rng(1).normal(size=(T, N, D))
    steps, figures, epochs = [], [], update.epochs

    def counted(*arguments):
        found = epochs(*arguments)
        steps.append(int(adam.t.numpy()) - sum(steps))
        figures.append(found["approxkl"])
        return found

    update.epochs = counted
    stats = update(rollout, advs, returns, 1.0)
    assert set(steps[:-1]) <= {4} and steps[-1] < 4 and 1 < len(steps) < 10
    looked_at = [*steps[:-1], steps[-1] + 1]  # it ends on one for which no step is taken
    assert stats["approxkl"] == pytest.approx(np.dot(looked_at, figures) / sum(looked_at))


def test_schedules_reach_the_optimizer():
    policy, _, update = setting(Config(nminibatches=1, noptepochs=1))
    before = get_flat(policy.trainable_variables)
    stats = update(*data(policy), 0.0)  # nothing of the budget remains: the linear schedule is at 0
    assert stats["lr"] == 0 and set(STATS) <= set(stats)
    np.testing.assert_array_equal(get_flat(policy.trainable_variables), before)


@pytest.mark.parametrize(("horizon", "rates"), [(None, [1.0, 0.75, 0.5, 0.25]), (640, [1.0, 0.9, 0.8, 0.7])])
def test_schedules_can_be_those_of_a_longer_run(horizon, rates, tmp_path):
    ppo2.learn("CartPole-v1", 256, num_env=2, nsteps=32, nminibatches=1, noptepochs=1, lr="linear:1.0",
               schedule_timesteps=horizon, log_path=str(tmp_path), print_interval=1e9)
    with (tmp_path / "progress.csv").open(newline="") as file:
        assert [float(row["lr"]) for row in csv.DictReader(file)] == pytest.approx(rates)
