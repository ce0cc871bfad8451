"""Programs for tests that need several processes, run by mpirun as `-m tests.plumbing.programs NAME[,ARGUMENT...] ...`.

Those that come to their end on a rank print "NAME,ARGUMENT: agrees", and the first that does not ends them all. After
`--each FOLDER` all are run whatever becomes of them; files there tell what went wrong on each rank: see `each`.
"""

import faulthandler
import functools
import itertools
import json
import os
import sys
import threading
import time
import traceback
from typing import NamedTuple
from unittest.mock import patch

import numpy as np

from baselines_lite.common.system import mpi
from baselines_lite.common.system.errors import UserError
from baselines_lite.common.system.mpi import get_comm
from tests import HANG


class End(NamedTuple):
    """A rank has come to the end of a call: with a traceback, or "" where nothing went wrong."""

    fault: str


class Alike(mpi.MpiComm):
    """The ranks tell each other what they are about to do, and raise where that is not the same.

    So a rank that fails by itself does not leave the others waiting for it for ever.
    """

    def sum(self, array):
        self._about_to(f"sum {array.dtype} {array.shape}")
        return super().sum(array)

    def gather(self, value):
        self._about_to("gather")
        return super().gather(value)

    def broadcast(self, value, root=0):
        self._about_to(f"broadcast from {root}")
        return super().broadcast(value, root)

    def fail(self, error):
        """Nothing: the exception goes on to `each`, and the others learn of it there."""

    def _about_to(self, do):
        said = self._world.allgather(do)
        if said.count(do) < self.size:
            said = ["end the call" if isinstance(it, End) else it for it in said]
            raise RuntimeError(f"the ranks part: they are about to {said}")

    def end(self, fault):
        """Waits until every rank has come to the end of its call; what went wrong on each."""
        said = self._world.allgather(End(fault))
        while not all(isinstance(it, End) for it in said):  # the others learn of it, and come to their end too
            said = self._world.allgather(End(fault))
        return [it.fault for it in said]


def each(folder, calls):
    """Runs calls one after the other, whether they fail or not: [call, [fault of each rank]] after each.

    One that hangs or crashes ends all ranks, each of them saying where it was. Both goes to files of `folder`: the
    launcher mixes what ranks print, and reads no more of it once one of them has crashed.
    """
    comm = mpi._comm = Alike()
    with open(os.path.join(folder, f"rank {comm.rank}"), "w") as last_words:
        faulthandler.enable(last_words)
        for call in calls:
            faulthandler.dump_traceback_later(HANG, exit=True, file=last_words)
            try:
                run(call)
                fault = ""
            except (Exception, SystemExit):
                fault = traceback.format_exc()
            faults = comm.end(fault)
            if comm.rank == 0:
                with open(os.path.join(folder, "outcomes"), "a") as file:
                    print(json.dumps([call, faults]), file=file)
        faulthandler.cancel_dump_traceback_later()
        faulthandler.enable()


def run(call):
    name, *arguments = call.split(",")
    globals()[name](*arguments)


def uncompiled(call):
    """The call with updates run operation by operation: for numbers that need not be compiled, which takes seconds."""
    @functools.wraps(call)
    def run_eagerly(*arguments):
        import tensorflow as tf

        tf.config.run_functions_eagerly(True)
        try:
            call(*arguments)
        finally:
            tf.config.run_functions_eagerly(False)

    return run_eagerly


def collectives():
    comm = get_comm()
    x = np.arange(3.0) + comm.rank
    np.testing.assert_array_equal(comm.mean(x.copy()), np.arange(3) + (comm.size - 1) / 2)
    np.testing.assert_array_equal(comm.sum(x.copy()), comm.size * (np.arange(3) + (comm.size - 1) / 2))
    whole = np.arange(6)[::2] + comm.rank  # not in one piece, nor floats
    assert comm.mean(whole).dtype == np.float64 and comm.sum(whole).dtype == np.int64
    np.testing.assert_array_equal(comm.mean(whole), np.arange(6)[::2] + (comm.size - 1) / 2)
    np.testing.assert_array_equal(comm.sum(np.array([True, comm.rank == 0])), [comm.size, 1])
    assert comm.gather(comm.rank) == list(range(comm.size))
    assert comm.broadcast(comm.rank) == 0
    assert comm.local_size == comm.size and comm.hosts == 1
    comm.check_synced(np.ones(4))
    try:
        comm.check_synced(np.full(4, comm.rank))
    except RuntimeError:
        print(f"rank {comm.rank} sees the difference", flush=True)


def verdict_of_one_rank():
    """Only rank 1 finds a fault; every rank must raise it."""
    comm = get_comm()

    def act():
        if comm.rank == 1:
            raise UserError("the file on rank 1 is bad")

    try:
        comm.together(act)
    except UserError as error:
        print(f"rank {comm.rank}: {error}", flush=True)
        sys.exit(2)


def exception_on_one_rank():
    """Rank 1 fails while the others wait in a collective."""
    comm = get_comm()
    if comm.rank == 1:
        raise ValueError("a bug on one rank")
    comm.gather(0)
    time.sleep(3600)


def rank_that_leaves():
    """Rank 1 comes to its end while the others wait in a collective."""
    comm = get_comm()
    if comm.rank != 1:
        comm.sum(np.ones(3))


def rank_that_crashes():
    """Rank 1 ends as by a fault of its memory."""
    if get_comm().rank == 1:
        os.abort()
    get_comm().gather(0)


def rank_that_stalls():
    """Rank 1 never comes to the collective in which the other waits for it."""
    from baselines_lite.common.system.watchdog import Watchdog

    comm = get_comm()
    with Watchdog(comm, 1 if comm.rank == 1 else HANG, lambda frames: None):
        if comm.rank == 1:
            threading.Event().wait()
        comm.gather(0)


def parameters_drift_apart():
    """On rank 1 a parameter changes behind the algorithm's back: training must end within 100 updates."""
    from baselines_lite import ppo2
    from baselines_lite.common.sampling.collector import Collector

    collect = Collector.collect

    def drifting(self):
        if get_comm().rank == 1:
            self.policy.vf_head.b.assign_add([1e-7])
        return collect(self)

    with patch.object(Collector, "collect", drifting):
        ppo2.learn("CartPole-v1", 1e6, num_env=2, nsteps=16, nminibatches=1, noptepochs=1, print_interval=1e9)


@uncompiled
def nan_on_one_rank():
    """Only rank 1's environment gives a reward or an observation that is none: all ranks end with a sentence."""
    from baselines_lite import deepq, ppo2
    from tests.plumbing.test_bad_rewards import Breaks
    from tests.plumbing.test_table import SHORT

    after = 101 if get_comm().rank == 1 else 10**9
    for alg, name, what in ((ppo2, "ppo2", "reward"), (deepq, "deepq", "observation")):
        try:
            alg.learn(Breaks(after, what), 1e5, print_interval=1e9, **{**SHORT[name], "num_env": 1, "nsteps": 32})
        except UserError as error:
            print(error, flush=True)
    sys.exit(2)


def environment_of_one_rank_fails(folder):
    """Rank 1's second environment raises an exception in the fourth update; it says what each update has left."""
    from baselines_lite import ppo2
    from baselines_lite.common.experiment.experiment import Experiment
    from tests.plumbing.test_last_logged_update import Breaks, digest

    rank, log, numbers = get_comm().rank, Experiment.log, itertools.count()

    def logging(self, *values):
        log(self, *values)
        with open(f"{folder}-digests-{rank}", "a") as file:  # mpirun may cut lines of several ranks into each other
            file.write(f"{digest(self.policy)}\n")

    import gymnasium as gym

    with patch.object(Experiment, "log", logging):
        # Those of the warm-up, whose state nobody knows, are followed by others.
        ppo2.learn(lambda: Breaks(30 if next(numbers) == 3 and rank == 1 else 10**9, RuntimeError("the wheel came off"),
                                  gym.spaces.Discrete(2)), 3200, num_env=2, nsteps=8, nminibatches=2, noptepochs=1,
                   normalize_observations=True, print_interval=1e9,
                   log_path=folder if rank == 0 else f"{folder}-{rank}")


def error_of_one_rank(folder):
    """Rank 1's environment raises UserError in the fourth update. That nobody catches it is not left to the caller."""
    import contextlib

    import gymnasium as gym

    from baselines_lite import ppo2
    from tests.plumbing.test_last_logged_update import Breaks

    after = 3 * 16 + 5 if get_comm().rank == 1 else 10**9
    with contextlib.suppress(UserError):
        ppo2.learn(lambda: Breaks(after, UserError("no more fuel"), gym.spaces.Discrete(2)), 3200, num_env=1, nsteps=16,
                   nminibatches=1, noptepochs=1, print_interval=1e9, save_path=f"{folder}/m")
    get_comm().gather(0)


def exit_of_one_rank():
    """Rank 1 leaves by sys.exit while its environment is made."""
    from baselines_lite import ppo2

    ppo2.learn(lambda: sys.exit(5) if get_comm().rank == 1 else __import__("gymnasium").make("CartPole-v1"), 1000,
               num_env=1)


def environment_of_one_rank_hangs(folder):
    """Rank 1's environment never comes back from its tenth step."""
    from pathlib import Path

    import gymnasium as gym

    from baselines_lite import ppo2
    from tests.plumbing.test_last_logged_update import Breaks

    class Hangs(Breaks):
        def step(self, action):
            if self.steps == 9 and get_comm().rank == 1:
                (Path(folder) / "hangs").touch()
                threading.Event().wait()
            return super().step(action)

    ppo2.learn(lambda: Hangs(10**9, None, gym.spaces.Discrete(2)), 3200, num_env=1, nsteps=16, nminibatches=1,
               print_interval=1e9)


def unlike_settings():
    """The ranks were told different things: all refuse, instead of waiting for each other for ever."""
    from baselines_lite import a2c, ppo2

    comm, counts = get_comm(), []
    options = dict(num_env=1, nsteps=16, nminibatches=1, noptepochs=1, print_interval=1e9)

    def callback(after):
        counts.append(after.nupdates)
        return comm.rank == 1 and after.nupdates == 3

    ppo2.learn("CartPole-v1", 3200, **options, callback=callback)
    assert comm.gather(counts) == [[1, 2, 3]] * 2  # one rank's word ends all
    try:
        ppo2.learn("CartPole-v1", 3200, **options, **({"callback": callback} if comm.rank == 0 else {}))
    except UserError as error:
        assert "callback is [" in str(error), error
    else:
        raise AssertionError("they wait for each other")
    for name, theirs in {"algorithm": {}, "env": {"env": "Acrobot-v1"}, "num_env": {"num_env": 3},
                         "num_hidden": {"num_hidden": 8}}.items():
        told = {"env": "CartPole-v1", "num_env": 2, **(theirs if comm.rank else {})}
        algorithm = a2c if name == "algorithm" and comm.rank else ppo2
        try:
            algorithm.learn(told.pop("env"), 1e5, nsteps=32, print_interval=1e9, **told)
        except UserError as error:
            print(error, flush=True)
        else:
            raise AssertionError(f"they train together, with {name} unlike")


SHORT = {  # what an algorithm needs to make many small updates
    "a2c": {}, "acer": dict(replay_start=64, buffer_size=320), "acktr": {},
    "vpg": dict(vf_iters=1, vf_minibatches=2), "npg": dict(vf_iters=1, vf_minibatches=2),
    "trpo_mpi": dict(vf_iters=1, vf_minibatches=2), "ppo1": dict(nminibatches=2, noptepochs=2),
    "ppo2": dict(nminibatches=2, noptepochs=2),
}


def equal_parameters(name, env=None, updates=50, *more):
    """After 50 updates parameters are bitwise equal over ranks, while first observations and actions differ."""
    import dataclasses

    from baselines_lite import registry
    from baselines_lite.acer.replay import Replay
    from baselines_lite.common.networks.flat import get_flat
    from baselines_lite.common.sampling.collector import Collector
    from tests.plumbing.test_table import SMALL_CNN

    env = env or ("Pendulum-v1" if "Box" in registry.ALGORITHMS[name].actions else "CartPole-v1")
    comm, first, pixels, start = get_comm(), [], "Frameskip" in env, registry.find(name)
    normalizes = not pixels and "normalize_rewards" in {f.name for f in dataclasses.fields(start.Config)}
    collect = Collector.collect

    def recording(self):
        result = collect(self)
        if not first:
            first.append((result.obs[0].tolist(), result.actions.tolist()))
        return result

    options = dict(network="cnn_small") if pixels else {}
    options |= SMALL_CNN if pixels and name != "ppo2" else {}  # at its own size it has a gradient that is summed alone
    options |= dict(normalize_observations=True, normalize_rewards=True) if normalizes else {}
    options |= dict(option.split("=") for option in more)
    nsteps = 16 if pixels else 32
    drawn, draw = [], Replay.draw
    with (patch.object(Collector, "collect", recording),
          patch.object(Replay, "draw", lambda self, rng: drawn.append(draw(self, rng)) or drawn[-1])):
        policy = start.learn(env, int(updates) * 2 * nsteps * comm.size, num_env=2, nsteps=nsteps, print_interval=1e9,
                             **SHORT[name], **options)
    comm.check_synced(get_flat(policy.trainable_variables))
    comm.check_synced(np.concatenate([np.zeros(1), *(np.ravel(v) for v in policy.normalize.statistics().values())]))
    obs, actions = zip(*comm.gather(first[0]))
    assert all(actions[0] != a for a in actions[1:]) and (pixels or all(obs[0] != o for o in obs[1:]))
    counts, replayed = zip(*comm.gather((len(drawn), [d.data["actions"].tolist() for d in drawn[:3]])))
    assert len(set(counts)) == 1 and (counts[0] > 0) == (name == "acer")
    assert name != "acer" or all(replayed[0] != r for r in replayed[1:])
    assert not normalizes or policy.normalize.obs.count == comm.size * (1024 + int(updates) * 64)


def same_seed_same_log():
    """Two runs of 12 updates with normalisation log the same, wall-clock columns aside; steps are of both ranks."""
    import contextlib
    import io
    import tempfile
    from pathlib import Path

    from baselines_lite import ppo2
    from tests.logs import reproducible

    comm = get_comm()
    with tempfile.TemporaryDirectory() as folder:
        folder, logs = Path(comm.broadcast(folder)), []
        for run in ("one", "two"):
            with contextlib.redirect_stdout(io.StringIO()) as said:
                ppo2.learn("Pendulum-v1", 3100, num_env=2, nsteps=64, seed=5, normalize_observations=True,
                           normalize_rewards=True, log_path=str(folder / run), print_interval=1e9)
            assert comm.rank > 0 or "2 ranks on 1 host, 1 thread each" in said.getvalue()
            logs.append(comm.broadcast(tuple(reproducible(folder / run / f"{name}.csv")
                                             for name in ("progress", "monitor")) if comm.rank == 0 else None))
    progress, monitor = logs[0]
    assert logs[0] == logs[1] and len(progress) == 13 and len(monitor) == 1 + 4 * 3
    assert progress[-1][:2] == ["3072", "12"]  # 3100 rounded down to whole updates


@uncompiled
def goes_on(name):
    """Four updates in two parts are to the bit what they are in one, on both ranks, which share out evaluations."""
    import contextlib
    import io
    import tempfile
    from pathlib import Path

    from baselines_lite import registry
    from baselines_lite.common.experiment.experiment import Experiment
    from tests.logs import reproducible
    from tests.plumbing.test_table import SHORT

    comm, why, learn = get_comm(), Experiment.why_stop, registry.find(name).learn
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        folder = Path(comm.broadcast(folder))
        env = "Pendulum-v1" if name == "ddpg" else "CartPole-v1"
        options = {**SHORT[name], "num_timesteps": 4 * 2 * 16, "log_interval": 1, "print_interval": 1e9,
                   "eval_interval": 2, "eval_episodes": 1 if name == "acer" else 3}  # of unlike shares
        whole = learn(env, log_path=str(folder / "whole"), **options)
        with patch.object(Experiment, "why_stop",
                          lambda self, *given: "stopped here" if self.nupdates == 2 else why(self, *given)):
            learn(env, log_path=str(folder / "parts"), **options)
        parts = learn(env, resume=str(folder / "parts"), print_interval=1e9)
        assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(whole.variables, parts.variables, strict=True))
        for log in ("progress", "monitor", "evaluations"):
            whole, parts = (comm.broadcast(comm.rank == 0 and reproducible(folder / run / f"{log}.csv"))
                            for run in ("whole", "parts"))
            assert whole == parts and len(whole) == {"progress": 5, "monitor": len(whole), "evaluations": 3}[log]
        assert whole[1][whole[0].index("episodes")] == str(options["eval_episodes"])


def episodes_by_step(name):
    """Episodes of one step, each worth its environment's number over the ranks: the log has them step after step.

    There are twice as many on each rank as the window holds.
    """
    import tempfile
    from pathlib import Path

    import gymnasium as gym
    import tensorflow as tf

    from baselines_lite import registry
    from tests.logs import reproducible

    class Numbered(gym.Env):
        observation_space, action_space = gym.spaces.Box(-1, 1, (1,)), gym.spaces.Discrete(2)

        def __init__(self, number):
            self.number = float(number)

        def reset(self, *, seed=None, options=None):
            return np.zeros(1, np.float32), {}

        def step(self, action):
            return np.zeros(1, np.float32), self.number, True, False, {}

    comm, replay = get_comm(), dict(learning_starts=700, buffer_size=900) if name == "deepq" else {}
    numbers = iter((2 * comm.rank, 2 * comm.rank + 1))
    tf.config.run_functions_eagerly(True)
    try:
        with tempfile.TemporaryDirectory() as folder:
            registry.find(name).learn(lambda: Numbered(next(numbers)), 800, num_env=2, nsteps=100, log_path=folder,
                                      log_interval=1, print_interval=1e9, **replay)
            if comm.rank == 0:
                progress, monitor = (reproducible(Path(folder) / f"{name}.csv") for name in ("progress", "monitor"))
                assert [row[progress[0].index("eprewmean")] for row in progress[1:]] == ["1.5"] * 2, progress
                assert [row[0] for row in monitor[1:]] == ["0", "1", "2", "3"] * 200
    finally:
        tf.config.run_functions_eagerly(False)


@uncompiled
def ranks_share_a_default_folder():
    """Without --log_path rank 0 names one folder for all; a second run at that time gets another. Rank 0 plots them."""
    import contextlib
    import os
    import tempfile

    from baselines_lite import command_line

    comm, flags = get_comm(), ("--env=CartPole-v1", "--num_timesteps=64", "--num_env=1", "--nsteps=16")
    with (tempfile.TemporaryDirectory() as folder, contextlib.chdir(comm.broadcast(folder)),
          patch.object(command_line, "now", lambda: f"by-{comm.rank}")):
        for _ in range(2):
            assert command_line.main(flags) == 0
        assert comm.gather(sorted(os.listdir("runs"))) == [["ppo2-CartPole-v1-by-0", "ppo2-CartPole-v1-by-0-2"]] * 2
        assert command_line.main(["plot", "runs", f"--out={comm.rank}.png"]) == 0
        assert comm.gather(sorted(os.listdir())) == [["0.png", "runs"]] * 2


@uncompiled
def rank_0_decides_on_files():
    """Paths that only rank 0 has count for all, from Python and on the command line; those that only rank 1 has are
    refused by both. What rank 0 loads, statistics too, all have.
    """
    import contextlib
    import tempfile

    from baselines_lite import command_line, load, ppo2
    from baselines_lite.common.networks.flat import get_flat

    comm = get_comm()
    options = dict(num_env=1, nsteps=16, nminibatches=1, noptepochs=1, print_interval=1e9, normalize_observations=True)

    def learn(only_on=0, **paths):
        policy = ppo2.learn("CartPole-v1", 64, **options, **(paths if comm.rank == only_on else {}))
        comm.check_synced(get_flat(policy.variables))
        comm.check_synced(np.concatenate([np.ravel(v) for v in policy.normalize.statistics().values()]))
        return policy

    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(comm.broadcast(folder)):
        first = learn(save_path="m")
        assert first.normalize.obs.count == 2 * 1024 + 64
        second = learn(load_path="m", log_path="log")
        assert second.normalize.obs.count == first.normalize.obs.count + 64
        comm.gather(0)
        np.testing.assert_array_equal(get_flat(load("log/model.safetensors").variables), get_flat(second.variables))
        for path in ("log_path", "save_path", "load_path"):
            try:
                learn(only_on=1, **{path: "other"})
                raise AssertionError(path)
            except UserError as error:
                assert f"{path} is given on rank 1, but not on rank 0" in str(error), error
        flags = ("--env=CartPole-v1", "--num_timesteps=64", "--num_env=1", "--nsteps=16", "--nminibatches=1")
        assert command_line.main((*flags, "--log_path=mine") if comm.rank == 0 else flags) == 0
        assert command_line.main((*flags, "--log_path=others") if comm.rank == 1 else flags) == 0
        assert command_line.main((*flags, "--gama=1") if comm.rank == 1 else flags) == 2
        assert command_line.main(["--version"] if comm.rank == 0 else flags) == 0
        assert comm.gather(sorted(set(os.listdir()))) == [["log", "m", "mine", "runs"]] * 2


@uncompiled
def natural_steps_where_ranks_round_differently():
    """On rank 1 the solutions of the linear systems are rounded away: it steps as rank 0 does, and none waits."""
    import gymnasium as gym
    import tensorflow as tf

    from baselines_lite.common.networks.flat import get_flat
    from baselines_lite.common.optim.natural_gradient import PolicyObjective
    from baselines_lite.common.policies.actor_critic import ActorCritic
    from baselines_lite.npg import npg
    from baselines_lite.trpo_mpi import trpo_mpi

    world, space, rng = get_comm(), gym.spaces.Box(-1, 1, (3,)), np.random.default_rng(0)
    obs, actions, advs = rng.normal(size=(64, 3)), rng.normal(size=(64, 3)), rng.normal(size=64)

    def rounding(solve):
        def rounded(*given, **named):
            x, residual = solve(*given, **named)
            return x * (world.rank == 0), residual
        return rounded

    def stepped(step):
        policy = ActorCritic(space, space, network_options={"num_hidden": 8}, seed=0, dtype=tf.float64)
        heads = policy.compiled_actor()(obs, None).heads
        objective, before = PolicyObjective(policy, world), get_flat(policy.trainable_variables)
        theta = objective.load({"obs": tf.constant(obs), "actions": tf.constant(actions), "advs": tf.constant(advs),
                                "logp": tf.constant(policy.logp(heads, actions))})
        with (patch.object(npg, "conjugate_gradient", rounding(npg.conjugate_gradient)),
              patch.object(trpo_mpi, "conjugate_gradient", rounding(trpo_mpi.conjugate_gradient)),
              patch.object(npg, "solve", rounding(npg.solve))):
            figures = step(objective, theta)
        world.check_synced(get_flat(policy.trainable_variables))
        return figures, not np.array_equal(get_flat(policy.trainable_variables), before)

    for solver in ("cg", "explicit"):
        _, moved = stepped(lambda *given, s=solver: npg.natural_step(*given, npg.Config(solver=s), step_kl=0.01))
        assert moved
    for ratio in (0.1, 10.0):  # where rank 0 expects so much that it takes no step, rank 1 would take any that improves
        figures, moved = stepped(lambda *given, r=ratio: trpo_mpi.trust_region_step(
            *given, trpo_mpi.Config(accept_ratio=r)))
        assert moved == (figures["step_fraction"] > 0) == (ratio == 0.1)


def equal_parameters_with_replay(name):
    """As equal_parameters, for an algorithm with a replay buffer: it must hold other transitions on each rank."""
    from baselines_lite import registry
    from baselines_lite.common.experiment import experiment
    from baselines_lite.common.networks.flat import get_flat
    from baselines_lite.common.sampling.replay_buffer import Index

    comm, experiments = get_comm(), []
    enter = experiment.Experiment.__enter__
    options = {"deepq": dict(env="CartPole-v1", train_freq=1, prioritized_replay=True, num_hidden=16),
               "ddpg": dict(env="Pendulum-v1", train_steps=8, noise="adaptive-param", normalize_observations=True,
                            normalize_returns=True, popart=True, sizes="16,16"),
               "examples.sac": dict(env="Pendulum-v1", train_steps=8, sizes="16,16")}[name]
    with patch.object(experiment.Experiment, "__enter__", lambda self: experiments.append(self) or enter(self)):
        policy = registry.find(name).learn(total_timesteps=50 * 8 * 2 * comm.size, num_env=2, nsteps=8,
                                           learning_starts=32, batch_size=16, buffer_size=1000, print_interval=1e9,
                                           **options)
    comm.check_synced(get_flat(policy.trainable_variables))
    assert policy.normalize.obs is None or policy.normalize.obs.count == comm.size * 800
    comm.check_synced(np.concatenate([np.zeros(1), *(np.ravel(v) for v in policy.normalize.statistics().values())]))
    stored = experiments[0].buffer[Index(np.arange(100), np.zeros(100, int))]
    obs, actions = zip(*comm.gather((stored.obs.tolist(), stored.actions.tolist())))
    assert obs[0] != obs[1] and actions[0] != actions[1]


@uncompiled
def replay_steps_of_one_rank_equal_two(name):
    """Gradient steps on 2B transitions on one process = on B on each of two, in float64."""
    import gymnasium as gym
    import tensorflow as tf

    from baselines_lite.common.networks.flat import get_flat
    from baselines_lite.common.optim.mpi_adam import MpiAdam
    from baselines_lite.common.policies.deterministic_policy import DeterministicPolicy
    from baselines_lite.common.policies.q_policy import QPolicy
    from baselines_lite.common.sampling.replay_buffer import Transitions
    from baselines_lite.common.system.mpi import Comm
    from baselines_lite.ddpg import config as ddpg_config
    from baselines_lite.ddpg.ddpg import Update as DdpgUpdate
    from baselines_lite.deepq import config as deepq_config
    from baselines_lite.deepq.deepq import Update as DeepqUpdate

    world, S, B = get_comm(), 3, 8
    box, choice = gym.spaces.Box(-1, 1, (3,)), gym.spaces.Discrete(4)
    rng = np.random.default_rng(0)
    actions = rng.integers(4, size=(S, 2 * B)) if name == "deepq" else rng.uniform(-1, 1, size=(S, 2 * B, 3))
    data = Transitions(rng.normal(size=(S, 2 * B, 3)), actions, rng.normal(size=(S, 2 * B)),
                       rng.normal(size=(S, 2 * B, 3)), rng.random((S, 2 * B)) < 0.2)
    weights = rng.random((S, 2 * B))

    def run(columns, comm):
        part = Transitions(*(array[:, columns] for array in data))
        if name == "deepq":
            policy = QPolicy(box, choice, network_options={"num_hidden": 16}, seed=0, dtype=tf.float64)
            update = DeepqUpdate(policy, MpiAdam(policy.trainable_variables, comm, max_grad_norm=0.1),
                                 deepq_config.Config())
            stats = [update.step(Transitions(*(a[i] for a in part)), weights[i, columns], 1e-2)[1][1:]
                     for i in range(S)]
        else:
            policy = DeterministicPolicy(box, box, network_options={"sizes": "16,16"}, seed=0, dtype=tf.float64)
            cfg = ddpg_config.Config(normalize_returns=True, popart=True, batch_size=B * (2 // comm.size),
                                     critic_l2_reg=1e-2)
            update = DdpgUpdate(policy, cfg, comm)
            found = update(part, 1e-3, 1e-2)
            stats = [[found["policy_loss"], found["value_loss"], update.figures["return_std"]]]
        return get_flat(policy.trainable_variables), np.array(stats)

    mine, my_stats = run(slice(world.rank * B, (world.rank + 1) * B), world)
    together, stats = run(slice(None), Comm())
    np.testing.assert_allclose(mine, together, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(my_stats, stats, rtol=1e-6)


@uncompiled
def copy_trains(name):
    """A copied folder whose loss and a default were edited: see test_forks.py."""
    import tempfile
    from pathlib import Path

    from baselines_lite.common.networks.flat import get_flat
    from tests.plumbing.forks import RATE, copy, edited_loss, trained_parts, with_rate

    comm = get_comm()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(comm.broadcast(folder))
        alg = comm.broadcast(copy(name, folder, edited_loss, with_rate) if comm.rank == 0 else None)
        sys.path.insert(0, str(folder))
        policy, before, after = trained_parts(alg)
        sys.path.remove(str(folder))
        del sys.modules["my_lab"]
    assert policy.info["algorithm"] == alg == f"my_lab.my_{name}" and str(RATE) in str(policy.info["config"])
    assert all((old == new).all() for old, new in zip(before, after, strict=True))
    comm.check_synced(get_flat(policy.trainable_variables))


@uncompiled
def steps_of_one_rank_equal_two(name):
    """A step on 2N samples on one process = a step on N on each of two, in float64, the shuffle fixed."""
    import gymnasium as gym
    import tensorflow as tf

    from baselines_lite.acktr import acktr
    from baselines_lite.common.networks.flat import get_flat
    from baselines_lite.common.optim import losses, minibatch
    from baselines_lite.common.optim.kfac import Kfac
    from baselines_lite.common.optim.minibatch import Minibatches
    from baselines_lite.common.optim.mpi_adam import MpiAdam
    from baselines_lite.common.optim.mpi_rmsprop import MpiRmsProp
    from baselines_lite.common.optim.natural_gradient import PolicyObjective
    from baselines_lite.common.policies.actor_critic import ActorCritic
    from baselines_lite.common.sampling.returns import standardize
    from baselines_lite.common.sampling.rollout import Rollout
    from baselines_lite.common.system.mpi import Comm
    from baselines_lite.npg import npg
    from baselines_lite.ppo1 import ppo1
    from baselines_lite.trpo_mpi import trpo_mpi
    from baselines_lite.vpg import vpg

    world, T, N, d = get_comm(), 16, 2, 3
    name, _, variant = name.partition(":")
    space, small = gym.spaces.Box(-1, 1, (d,)), {"num_hidden": 16}  # npg:explicit inverts the Fisher matrix
    rng = np.random.default_rng(0)
    obs, actions = rng.normal(size=(2, T, 2 * N, d))
    advs, returns, values = rng.normal(size=(3, T, 2 * N))
    start = ActorCritic(space, space, network_options=small, seed=0, dtype=tf.float64)
    heads = start.compiled_actor()(obs.reshape(-1, d), None).heads.reshape(T, 2 * N, d) + 0.1
    logp = start.logp(heads, actions)
    local = np.stack([np.random.default_rng(e).permutation(T * N) for e in range(3)]).reshape(12, -1).astype(np.int32)
    t, n = np.divmod(local, N)
    whole = np.concatenate([t * 2 * N + r * N + n for r in range(2)], axis=1).astype(np.int32)

    def run(columns, comm, indices):
        policy = ActorCritic(space, space, network_options=small, seed=0, dtype=tf.float64)
        part = {k: a[:, columns] for k, a in dict(obs=obs, actions=actions, advs=advs, returns=returns, values=values,
                                                  logp=logp).items()}
        part["advs"] = standardize(part["advs"], comm)
        batch = {k: tf.constant(a.reshape(-1, *a.shape[2:])) for k, a in part.items()}
        stats = {}
        if name in ("npg", "trpo_mpi"):
            objective = PolicyObjective(policy, comm, ent_coef=0.01)
            theta = objective.load(batch)
            if name == "npg":
                stats = npg.natural_step(objective, theta, npg.Config(solver=variant, cg_iters=20), step_kl=0.01)
            else:
                penalty = 2.0 if variant == "penalty" else None
                stats = trpo_mpi.trust_region_step(objective, theta, trpo_mpi.Config(penalty_coef=penalty))
        elif name == "a2c":
            step = Minibatches(policy, MpiRmsProp(policy.trainable_variables, comm, max_grad_norm=0.5),
                               lambda b, _: losses.actor_critic_loss(policy, b, 0.01, 0.5),
                               ("policy_loss", "value_loss", "entropy"))
            stats = step(batch, None, 1e-2)
        elif name == "acktr":
            cfg = acktr.Config()
            kfac = Kfac(policy, comm, lambda b: losses.actor_critic_loss(policy, b, 0.01, 0.5),
                        lambda b: acktr.log_likelihood(policy, cfg, b), acktr.STATS, cold_iter=1, inverse_every=1)
            for _ in range(4):
                stats = kfac.update(batch, 0.1)
            theta = get_flat(policy.trainable_variables)
            for pair in kfac.factors:
                theta = np.concatenate([theta, *(f.numpy().ravel() for f in pair)])
            return theta, stats
        elif name == "vpg":
            step = Minibatches(policy, MpiAdam(policy.pi_variables, comm),
                                 lambda b, _: vpg.policy_loss(policy, vpg.Config(), b), ("policy_loss", "entropy"))
            stats = step(batch, None, 1e-2)
            fit = Minibatches(policy, MpiAdam(policy.vf_variables, comm),
                                lambda b, _: losses.value_fit(policy, b), ("value_loss",))
            stats |= fit(batch, indices, 1e-3)
        else:
            cfg = ppo1.Config(objective=variant, noptepochs=3, nminibatches=4, target_kl=1e-5)
            update = ppo1.Update(policy, MpiAdam(policy.trainable_variables, comm), cfg, comm, rng)
            none = np.zeros_like(part["advs"], bool)
            rollout = Rollout(part["obs"], part["actions"], part["advs"], none, none, part["values"], part["values"],
                              heads[:, columns], [], 0.0, 0.0)
            with patch.object(ppo1, "shuffled", lambda *_: indices):
                stats = update(rollout, part["advs"], part["returns"], 1.0) | {"beta": update.beta}
        return get_flat(policy.trainable_variables), stats

    together, stats = run(slice(None), Comm(), whole)
    for light in (minibatch.LIGHT, -1):  # all ranks' minibatches, or gradients that an Allreduce averages
        with patch.object(minibatch, "LIGHT", light):
            mine, my_stats = run(slice(world.rank * N, (world.rank + 1) * N), world, local)
        np.testing.assert_allclose(mine, together, rtol=1e-6, atol=1e-9)
        for key, value in stats.items():
            np.testing.assert_allclose(my_stats[key], value, rtol=1e-5, atol=1e-9, err_msg=key)
    assert not np.array_equal(mine, get_flat(start.trainable_variables))


@uncompiled
def acer_of_one_rank_equals_two():
    """Three updates on 2N segments on one process = three on N on each of two, in float64; also the average policy."""
    import gymnasium as gym
    import tensorflow as tf

    from baselines_lite.acer.acer import STATS, Update
    from baselines_lite.acer.config import Config
    from baselines_lite.acer.replay import Ends, Segments
    from baselines_lite.common.networks.flat import get_flat
    from baselines_lite.common.optim.mpi_rmsprop import MpiRmsProp
    from baselines_lite.common.policies.actor_q import ActorQ
    from baselines_lite.common.system.mpi import Comm

    world, N, T, d, K = get_comm(), 2, 6, 3, 4
    rng = np.random.default_rng(0)
    dones = rng.random((2 * N, T)) < 0.3
    arrays = {"obs": rng.normal(size=(2 * N, T + 1, d)), "actions": rng.integers(K, size=(2 * N, T)),
              "rewards": rng.normal(size=(2 * N, T)), "terminated": dones & (rng.random((2 * N, T)) < 0.5),
              "dones": dones, "log_mu": np.log(rng.dirichlet(np.ones(K), size=(2 * N, T)))}
    finals = rng.normal(size=(2 * N, T, d))

    def run(rows, comm):
        policy = ActorQ(gym.spaces.Box(-1, 1, (d,)), gym.spaces.Discrete(K), seed=0, dtype=tf.float64)
        update = Update(policy, MpiRmsProp(policy.trainable_variables, comm, max_grad_norm=0.1), Config(delta=0.01))
        data = {name: array[rows] for name, array in arrays.items()}
        segments, steps = np.nonzero(data["dones"] & ~data["terminated"])
        ends = Ends(segments, steps, finals[rows][segments, steps], np.empty((len(steps), 0)))
        stats = [update(Segments(data, ends), 1e-2)[STATS.index("policy_loss") :] for _ in range(3)]
        theta = [get_flat(of.trainable_variables) for of in (policy, update.average)]
        return np.concatenate(theta), np.array(stats)

    mine, my_stats = run(slice(world.rank * N, (world.rank + 1) * N), world)
    together, stats = run(slice(None), Comm())
    np.testing.assert_allclose(mine, together, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(my_stats, stats, rtol=1e-9, atol=1e-12)
    assert not np.array_equal(*np.split(mine, 2))


def kfac_on_two_ranks():
    """With convolutions and a shared trunk, in float64: updates on 2N samples on one process = updates on N on each of
    two; what only rank 1 finds not finite is left out by both; a slow thread on rank 1 is waited for by both.
    """
    import gymnasium as gym
    import tensorflow as tf

    from baselines_lite.acktr import acktr
    from baselines_lite.common.networks.flat import get_flat
    from baselines_lite.common.optim import kronecker, losses
    from baselines_lite.common.optim.kfac import Kfac
    from baselines_lite.common.optim.kronecker import damped_inverses
    from baselines_lite.common.policies.actor_critic import ActorCritic
    from baselines_lite.common.system.mpi import Comm

    world, N = get_comm(), 8
    pictures, box = gym.spaces.Box(0, 255, (8, 8, 2), np.uint8), gym.spaces.Box(-1, 1, (2,))
    rng = np.random.default_rng(0)
    data = dict(obs=rng.integers(0, 256, (2 * N, 8, 8, 2), dtype=np.uint8), actions=rng.normal(size=(2 * N, 2)),
                advs=rng.normal(size=2 * N), returns=rng.normal(size=2 * N))
    mine = {name: tf.constant(array[world.rank * N :][:N]) for name, array in data.items()}

    def made(comm, **options):
        policy = ActorCritic(pictures, box, network="cnn", network_options={"convs": "3@4/2", "num_hidden": 4}, seed=0,
                             dtype=tf.float64)
        cfg = acktr.Config()
        return Kfac(policy, comm, lambda b: losses.actor_critic_loss(policy, b, 0.01, 0.5),
                         lambda b: acktr.log_likelihood(policy, cfg, b), acktr.STATS, cold_iter=1, inverse_every=1,
                         **options)

    one, half = made(Comm()), made(world)
    for _ in range(4):
        stats, my_stats = one.update({name: tf.constant(array) for name, array in data.items()}, 0.1), \
            half.update(mine, 0.1)
    for name, value in stats.items():
        np.testing.assert_allclose(my_stats[name], value, rtol=1e-6, err_msg=name)
    np.testing.assert_allclose(get_flat(half.variables), get_flat(one.variables), rtol=1e-6, atol=1e-9)
    for pair, whole in zip(half.factors, one.factors, strict=True):
        np.testing.assert_allclose(pair.A, whole.A, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(pair.G, whole.G, rtol=1e-6, atol=1e-9)

    before = get_flat(half.variables)
    bad = mine | {"advs": tf.fill([N], tf.constant(np.nan, tf.float64))} if world.rank else mine
    assert half.update(bad, 0.1)["kfac_skipped"] == 1
    np.testing.assert_array_equal(get_flat(half.variables), before)

    late = made(world, asynchronous=True, examples=4, positions=2)
    invert, released = damped_inverses, threading.Event()

    def natural(updates):
        return [late.update(mine, 0.1)["kfac_kl"] > 0 for _ in range(updates)]

    late.inverter.delay = 3
    with patch.object(kronecker, "damped_inverses", lambda *given: released.wait() and invert(*given)):
        try:
            assert not any(natural(2))  # the second hands the factors to the threads
            if world.rank == 0:
                released.set()
                late.inverter._job.result()
            assert not any(natural(2))  # not yet, though rank 0's thread is done: a run is to repeat itself
            assert late.inverter._job.done() == (world.rank == 0)
            released.set()
            assert all(natural(1))  # which waits for the threads
        finally:
            released.set()
        assert all(natural(20))  # however long each thread takes
    world.check_synced(get_flat(late.variables))


@uncompiled
def recurrent_a2c_of_one_rank_equals_two():
    """Steps on the sequences of 2N environments on one process = steps on those of N on each of two, in float64."""
    import gymnasium as gym
    import tensorflow as tf

    from baselines_lite.common.networks.flat import get_flat
    from baselines_lite.common.optim import losses
    from baselines_lite.common.optim.minibatch import Minibatches
    from baselines_lite.common.optim.mpi_rmsprop import MpiRmsProp
    from baselines_lite.common.policies.actor_critic import ActorCritic
    from baselines_lite.common.system.mpi import Comm

    world, N, L = get_comm(), 3, 5
    space, rng = gym.spaces.Box(-1, 1, (3,)), np.random.default_rng(0)
    data = dict(obs=rng.normal(size=(2 * N, L, 3)), firsts=rng.random((2 * N, L)) < 0.3,
                actions=rng.integers(4, size=2 * N * L), advs=rng.normal(size=2 * N * L) * 100,
                returns=rng.normal(size=2 * N * L))

    def run(rank, ranks, comm):
        policy = ActorCritic(space, gym.spaces.Discrete(4), network="lstm", network_options={"nlstm": 6}, seed=0,
                             dtype=tf.float64)
        whole = data | {"states": np.random.default_rng(1).normal(size=policy.initial_state(2 * N).shape)}
        batch = {name: tf.constant(np.split(array, ranks)[rank]) for name, array in whole.items()}
        step = Minibatches(policy, MpiRmsProp(policy.trainable_variables, comm, max_grad_norm=0.5),
                           lambda b, _: losses.actor_critic_loss(policy, b, 0.01, 0.5), ("policy", "value", "entropy"))
        stats = [list(step(batch, None, 1e-2).values()) for _ in range(3)]
        return get_flat(policy.trainable_variables), stats

    mine, my_stats = run(world.rank, 2, world)
    together, stats = run(0, 1, Comm())
    np.testing.assert_allclose(mine, together, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(my_stats, stats, rtol=1e-9)


def one_rank_equals_two(target_kl):
    """An update of 2N samples on one process = an update of N on each of two, in float64, the shuffle fixed."""
    import gymnasium as gym
    import tensorflow as tf

    from baselines_lite.common.networks.flat import get_flat
    from baselines_lite.common.optim import minibatch
    from baselines_lite.common.optim.mpi_adam import MpiAdam
    from baselines_lite.common.policies.actor_critic import ActorCritic
    from baselines_lite.common.sampling.rollout import Rollout
    from baselines_lite.common.system.mpi import Comm
    from baselines_lite.ppo2.config import Config
    from baselines_lite.ppo2.ppo2 import Update

    comm = get_comm()
    T, N, d = 16, 2, 3
    cfg = Config(nminibatches=4, noptepochs=3, ent_coef=0.01, lr=Config.lr, max_grad_norm=0.1,
                 target_kl=None if target_kl == "none" else float(target_kl))
    space = gym.spaces.Box(-1, 1, (d,))
    rng = np.random.default_rng(0)
    # Data [T, N] per rank; the single process holds both ranks' environments side by side: [T, 2N].
    obs, actions = rng.normal(size=(2, T, 2 * N, d))
    advs, returns, values = rng.normal(size=(3, T, 2 * N))
    start = ActorCritic(space, space, seed=0, dtype=tf.float64)
    heads = start.compiled_actor()(obs.reshape(-1, d), None).heads.reshape(T, 2 * N, d)

    def run(columns, comm, indices, light=minibatch.LIGHT):
        policy = ActorCritic(space, space, seed=0, dtype=tf.float64)
        adam = MpiAdam(policy.trainable_variables, comm, max_grad_norm=cfg.max_grad_norm)
        update = Update(policy, adam, cfg, comm, rng)
        update.shuffle = lambda nbatch: indices
        part = [a[:, columns] for a in (obs, actions, advs, returns, values, heads)]
        none = np.zeros_like(part[2], bool)
        rollout = Rollout(part[0], part[1], part[2], none, none, part[4], part[4], part[5], [], 0.0, 0.0)
        with patch.object(minibatch, "LIGHT", light):
            assert update.minibatches.steps_alone(len(indices[0])) == (comm.size == 1 or light > 0)
            stats = update(rollout, part[2], part[3], 1.0)
        return get_flat(policy.trainable_variables), stats

    # Sample t * N + n of rank r is sample t * 2N + r * N + n of the whole.
    local = np.stack([np.random.default_rng(e).permutation(T * N) for e in range(3)]).reshape(12, -1).astype(np.int32)
    t, n = np.divmod(local, N)
    whole = np.concatenate([t * 2 * N + r * N + n for r in range(2)], axis=1).astype(np.int32)
    own = slice(comm.rank * N, (comm.rank + 1) * N)
    together, stats = run(slice(None), Comm(), whole)
    for light in (minibatch.LIGHT, -1):  # all ranks' minibatches, or gradients that an Allreduce averages
        mine, my_stats = run(own, comm, local, light)
        np.testing.assert_allclose(mine, together, rtol=1e-9, atol=1e-12)
        for name, value in stats.items():
            np.testing.assert_allclose(my_stats[name], value, rtol=1e-9, atol=1e-12, err_msg=name)
    assert not np.array_equal(mine, get_flat(start.trainable_variables))


if __name__ == "__main__":
    faulthandler.enable()
    if sys.argv[1] == "--each":
        each(sys.argv[2], sys.argv[3:])
    else:
        for call in sys.argv[1:]:
            faulthandler.dump_traceback_later(HANG, exit=True)
            run(call)
            sys.stdout.write(f"{call}: agrees\n")  # in one piece: the ranks share one output
            sys.stdout.flush()
