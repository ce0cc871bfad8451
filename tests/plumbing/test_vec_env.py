"""Vector environments of every kind: three ways to reset, worker processes, and those that an id brings itself."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorWrapper

from baselines_lite import UserError, evaluate, ppo2
from baselines_lite.common.envs.episode_stats import WHOLE_EPISODE_OVER
from baselines_lite.common.envs.vec_env import make_vec_env
from baselines_lite.common.envs.workers import WorkerError, close
from baselines_lite.common.policies.actor_critic import ActorCritic
from baselines_lite.common.policies.actor_q import ActorQ
from baselines_lite.common.sampling.collector import Collector
from baselines_lite.common.sampling.revalued import revalued
from baselines_lite.common.system.mpi import Comm
from tests import HANG
from tests.conftest import ROOT, until
from tests.logs import reproducible

MODES = (AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED)


class Walk(gym.Env):
    """A random walk that actions do not touch; episodes of 2 to 6 steps, which die or are cut by turns."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left, self.dies = int(self.np_random.integers(2, 7)), bool(self.np_random.integers(2))
        self.position = self.np_random.normal(size=2)
        return self.position, {}

    def step(self, action):
        self.left -= 1
        self.position = self.position + self.np_random.normal(size=2)
        over = self.left == 0
        return self.position, float(self.position[0]), over and self.dies, over and not self.dies, {}


def vector(make, mode, num_env=3):
    return make_vec_env(SyncVectorEnv([make] * num_env, autoreset_mode=mode))


@pytest.mark.parametrize("num_env", [1, 3])
@pytest.mark.parametrize("network", ["mlp", "lstm"])
def test_the_three_modes_give_the_same_transitions(network, num_env, uncompiled):
    """NEXT_STEP's dead steps are neither in a rollout nor in a count; its final observations are used for values."""
    found, small = {}, {"nlstm": 8} if network == "lstm" else {"num_hidden": 8}
    for mode in MODES:
        policy = ActorQ(Walk.observation_space, Walk.action_space, network=network, network_options=small, seed=0,
                        normalize_rewards=True)
        collector = Collector(vector(Walk, mode, num_env), policy, 60, Comm(), seed=4)
        rollouts = [collector.collect() for _ in range(4 if num_env == 1 else 1)]  # the next begins at another step
        assert policy.normalize.ret.count == num_env * (-(-Collector.WARM_UP // num_env) + 60 * len(rollouts))
        names = ["obs", "rewards", "terminated", "dones", "values", "next_values", "next_obs", "heads"]
        names += ["firsts", "next_states"] if network == "lstm" else []
        again, live = revalued(rollouts[-1], policy), ~rollouts[-1].terminated
        np.testing.assert_allclose(again.values, rollouts[-1].values, atol=1e-5)
        np.testing.assert_allclose(again.next_values[live], rollouts[-1].next_values[live], atol=1e-5)
        found[mode] = {name: np.concatenate([getattr(r, name) for r in rollouts]) for name in names}
        for name in ("next_values", "next_obs"):
            found[mode][name][found[mode]["terminated"]] = 0  # whatever it is: nothing follows death
        if num_env == 1:
            found[mode]["episodes"] = [(e.r, e.l) for r in rollouts for e in r.episodes]
            assert len(found[mode]["episodes"]) > 40
    for mode in MODES[1:]:
        for name, expected in found[MODES[0]].items():
            np.testing.assert_allclose(found[mode][name], expected, atol=1e-5, err_msg=f"{mode} {name}")


class InPlace(Walk):
    """The same, in one array for all observations."""

    def __init__(self):
        self.memory = np.zeros(2)

    def reset(self, *, seed=None, options=None):
        self.memory[:], info = super().reset(seed=seed)
        return self.memory, info

    def step(self, action):
        self.memory[:], *rest = super().step(action)
        return self.memory, *rest


def test_final_observations_survive_environments_that_reuse_their_arrays():
    gym.register("InPlace-v0", InPlace)
    policy = ActorCritic(Walk.observation_space, Walk.action_space)
    rollouts = []
    for env in (Walk, InPlace, InPlace(), "InPlace-v0"):
        rollouts.append(Collector(make_vec_env(env), policy, 60, Comm(), seed=4).collect())
        assert np.count_nonzero(rollouts[-1].dones & ~rollouts[-1].terminated) > 3
    for rollout in rollouts[1:]:
        np.testing.assert_array_equal(rollout.obs, rollouts[0].obs)
        np.testing.assert_array_equal(rollout.next_values, rollouts[0].next_values)


class Short(Walk):
    def reset(self, *, seed=None, options=None):
        obs, info = super().reset(seed=seed)
        self.left = 1
        return obs, info


@pytest.mark.parametrize("lives", [1, 2])
def test_what_environments_do_beyond_a_rollout_counts_for_the_log_only(lives):
    """Environments whose episodes are long wait for those with many dead steps; what they do meanwhile is not lost."""

    class Recorded(VectorWrapper):
        ends = np.zeros(3, int)

        def step(self, actions):
            *result, infos = super().step(actions)
            done = result[2] | result[3]
            self.ends += done
            over = done & (self.ends % lives == 0)
            seen.append((result[1].copy(), over))
            return *result, infos if lives == 1 else {**infos, WHOLE_EPISODE_OVER: over}

    seen = []
    venv = Recorded(SyncVectorEnv([Short, Walk, Walk], autoreset_mode=AutoresetMode.NEXT_STEP))
    policy = ActorCritic(Walk.observation_space, Walk.action_space)
    collector = Collector(venv, policy, 20, Comm(), seed=4)
    episodes = [e for _ in range(50) for e in collector.collect().episodes]
    rewards, dones = (np.array(x) for x in zip(*seen, strict=True))
    returns = []
    for n in range(3):
        ends = np.flatnonzero(dones[:, n])
        starts = np.append(0, ends[:-1] + 2)  # after the dead step
        returns += [rewards[a : b + 1, n].sum() for a, b in zip(starts, ends, strict=True)]
    np.testing.assert_allclose(sorted(e.r for e in episodes), sorted(returns), atol=1e-9)


@pytest.mark.parametrize("step", range(1040, 1070, 3))
def test_a_reward_beyond_a_rollout_that_is_no_number_ends_training_too(step):
    """It would be in the statistics of rewards."""

    class Breaks(Walk):
        steps = 0

        def step(self, action):
            self.steps += 1
            obs, reward, *rest = super().step(action)
            return obs, np.nan if self.steps == step else reward, *rest

    policy = ActorCritic(Walk.observation_space, Walk.action_space, normalize_rewards=True)
    collector = Collector(SyncVectorEnv([Short, Breaks], autoreset_mode=AutoresetMode.NEXT_STEP), policy, 20, Comm())
    with pytest.raises(UserError, match="environment 1 of rank 0: the reward is nan"):
        for _ in range(20):
            collector.collect()
    assert np.isfinite(policy.normalize.ret.mean)


def test_statistics_of_observations_leave_dead_steps_out():
    moments = []
    for mode in MODES:
        policy = ActorCritic(Walk.observation_space, Walk.action_space, normalize_observations=True)
        collector = Collector(vector(Walk, mode), policy, 20, Comm(), seed=4)
        collector.collect()
        assert policy.normalize.obs.count == 3 * -(-Collector.WARM_UP // 3) + 60
        moments.append([policy.normalize.obs.mean, policy.normalize.obs.var])
    np.testing.assert_allclose(moments[1], moments[0], atol=1e-9)
    np.testing.assert_allclose(moments[2], moments[0], atol=1e-9)


class CallItSameStep(VectorWrapper):
    """Says SAME_STEP of a NEXT_STEP environment: what a loop does that does not ask."""

    def __init__(self, env):
        super().__init__(env)
        self.metadata = {**env.metadata, "autoreset_mode": AutoresetMode.SAME_STEP}


def detour(venv):
    """The probability of the right action in Detour after training on `venv`."""
    policy = ppo2.learn(venv, 12_000, nsteps=50, lam=0.0, lr="3e-3", ent_coef=0.01, seed=1, print_interval=1e9)
    return 1 / (1 + np.exp(-np.diff(policy.pi_head(policy.pi_net(np.eye(2, dtype=np.float32)))[0][::-1])[0]))


def test_every_mode_learns_what_is_right_and_a_naive_loop_does_not():
    make = lambda: gym.make("baselines_lite.common.envs.toy_envs:Detour-v0")  # noqa: E731
    right = {mode.name: detour(SyncVectorEnv([make] * 8, autoreset_mode=mode)) for mode in MODES}
    assert all(p > 0.9 for p in right.values()), right
    naive = detour(CallItSameStep(SyncVectorEnv([make] * 8, autoreset_mode=AutoresetMode.NEXT_STEP)))
    assert naive < 0.5, naive


@pytest.mark.parametrize("mode", MODES)
def test_a_list_where_the_space_is_a_tuple_is_one(mode):
    """And stays a list of numbers where it is a Box. Two episodes of one length: lists could be stacked crosswise."""
    box = gym.spaces.Box(-99, 99, (2,))

    class Lists(Walk):
        observation_space = gym.spaces.Tuple([box, box])

        def reset(self, **options):
            return self.seen(super().reset(**options))

        def step(self, action):
            return self.seen(super().step(action))

        def seen(self, result):
            self.left, self.dies = min(self.left, 2), False
            return [[self.left, 1.0], np.array([self.left, 2.0])], *result[1:]

    class GivesLists(VectorWrapper):
        """A vector environment whose batches are lists too."""

        def reset(self, **options):
            obs, infos = super().reset(**options)
            return list(obs), infos

        def step(self, actions):
            obs, *rest = super().step(actions)
            return list(obs), *rest

    for wrap, num_env in ((lambda venv: venv, 2), (GivesLists, 3)):
        venv = make_vec_env(wrap(SyncVectorEnv([Lists] * num_env, autoreset_mode=mode)))
        policy = ActorQ(venv.single_observation_space, venv.single_action_space)
        rollout = Collector(venv, policy, 8, Comm()).collect()
        expected = np.where(rollout.dones[..., None], [0, 1, 0, 2], [1, 1, 1, 2])
        np.testing.assert_array_equal(rollout.next_obs, expected)
        assert rollout.dones.sum() == 4 * num_env


class Legal(Walk):
    """Tells how many moves are left, in an array of that length, from the start."""

    def reset(self, **options):
        return super().reset(**options)[0], {"legal": np.arange(self.left)}

    def step(self, action):
        return *super().step(action)[:4], {"legal": np.arange(self.left)}


@pytest.mark.parametrize("env", [Legal, "Legal-v0"])
def test_infos_may_have_any_shapes(env):
    if isinstance(env, str):
        gym.register(env, Legal)
    venv = make_vec_env(env, 3)
    infos = [venv.reset(seed=0)[1], *(venv.step(np.zeros(3, np.int64))[4] for _ in range(8))]
    assert not infos[0] and all(set(each) <= {"final_obs", "_final_obs", "final_info", "_final_info"} for each in infos)


def test_a_vector_environment_that_does_not_say_how_it_resets_is_refused():
    venv = SyncVectorEnv([Walk])
    venv.metadata = {}
    with pytest.raises(UserError, match="does not say how it resets"):
        make_vec_env(venv)


def test_native_and_its_refusals():
    venv = make_vec_env("CartPole-v1", 4, vec="native")
    assert venv.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    policy = ppo2.learn("CartPole-v1", 640, vec="native", num_env=4, nsteps=32, print_interval=1e9)
    assert evaluate(policy, venv, episodes=6).min() > 0
    for env, options, words in (("Pendulum-v1", {"vec": "native"}, "brings no vector environment"),
                                (Walk, {"vec": "native"}, "factory"), (Walk(), {"vec": "async"}, "in this process"),
                                ("PongNoFrameskip-v4", {"vec": "async"}, "always native"),
                                (SyncVectorEnv([Walk]), {"vec": "sync"}, "is one already")):
        with pytest.raises(UserError, match=words):
            make_vec_env(env, **options)


def test_workers_and_this_process_train_alike(cli, main, tmp_path):
    for run, vec in ((main, "sync"), (cli, "async")):
        done = run("--env=CartPole-v1", f"--vec={vec}", "--num_timesteps=640", "--num_env=2", "--nsteps=32",
                   f"--log_path={vec}")
        assert done.returncode == 0, done.stderr
    assert reproducible(tmp_path / "sync/progress.csv") == reproducible(tmp_path / "async/progress.csv")


WORKER = """
import os

import gymnasium as gym
from gymnasium.envs.classic_control.cartpole import CartPoleEnv


class Fails(CartPoleEnv):
    count = 0

    def step(self, action):
        Fails.count += 1
        if Fails.count == 20 and self.np_random.bit_generator.seed_seq.entropy % 2 == int(os.environ.get("FAILS", 2)):
            raise ValueError("the pole broke")
        return super().step(action)


class NotMade(CartPoleEnv):
    def __init__(self, **options):
        import multiprocessing

        if multiprocessing.parent_process() is not None:
            raise OSError("no pole")
        super().__init__(**options)


class Told(CartPoleEnv):
    def __init__(self, **options):
        super().__init__(**options)
        import multiprocessing

        if multiprocessing.parent_process() is not None:
            names = [k for k in os.environ if k.startswith(("OMPI_", "PMI_", "PMIX_"))]
            with open(f"worker-{os.getpid()}", "w") as file:
                file.write(",".join(names))


gym.register("Fails-v0", entry_point=Fails)
gym.register("NotMade-v0", entry_point=NotMade)
gym.register("Told-v0", entry_point=Told, max_episode_steps=500)
"""


@pytest.fixture
def module(tmp_path):
    (tmp_path / "my_envs.py").write_text(WORKER)
    return {"PYTHONPATH": str(tmp_path)}


def test_a_workers_exception_has_its_index_and_traceback(cli, module):
    seeds = [s % 2 for s in __import__("baselines_lite.common.system.seeding", fromlist=["x"]).env_seeds(0, 0, 3)]
    assert 0 < sum(seeds) < 3  # some environments fail, some do not
    done = cli("--env=my_envs:Fails-v0", "--vec=async", "--num_env=3", "--nsteps=32", "--nminibatches=1",
               "--num_timesteps=960", env={**module, "FAILS": "1"})
    assert done.returncode == 1
    assert "WorkerError" in done.stderr and "the pole broke" in done.stderr and 'my_envs.py", line' in done.stderr
    failed = [n for n, odd in enumerate(seeds) if odd]
    assert any(f"environment {n} failed in its worker process" in done.stderr for n in failed)


def test_a_worker_that_cannot_make_its_environment_says_so(cli, module):
    done = cli("--env=my_envs:NotMade-v0", "--vec=async", "--num_env=2", "--nsteps=32", "--num_timesteps=640",
               env=module)
    assert done.returncode != 0 and "no pole" in done.stderr


def test_workers_are_without_mpis_variables(cli, module, tmp_path):
    done = cli("--env=my_envs:Told-v0", "--vec=async", "--num_env=2", "--nsteps=32", "--num_timesteps=256",
               env=module, ranks=2)
    assert done.returncode == 0, done.stderr
    told = list(tmp_path.glob("worker-*"))
    assert len(told) == 4 and all(file.read_text() == "" for file in told)


def children(of):
    """Every living descendant of a process, by /proc."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as file:
                    fields = file.read().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] != "Z":
                parents[int(entry)] = int(fields[1])
    found, grew = {of}, True
    while grew:
        grown = found | {pid for pid, parent in parents.items() if parent in found}
        grew, found = grown != found, grown
    return found - {of}


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="needs /proc")
@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_leaves_no_process_behind(tmp_path, times):
    command = [sys.executable, str(ROOT / "run.py"), "--env=CartPole-v1", "--vec=async", "--num_env=3", "--nsteps=64",
               "--nminibatches=1", "--num_timesteps=1e8", "--log_path=log"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                               start_new_session=True, text=True)
    log = tmp_path / "log/progress.csv"
    try:
        until(lambda: log.exists() and log.read_text().count("\n") > 3, process)
        workers = children(process.pid)
        assert len(workers) >= 3
        for _ in range(times):
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process of the group
            time.sleep(0.01)
        _, stderr = process.communicate(timeout=HANG)
    finally:
        process.kill()
    # A second one that comes when the run has ended finds Python on its way out.
    assert process.returncode == 130 or (times == 2 and process.returncode == -signal.SIGINT), stderr
    assert set(stderr.splitlines()) <= {"stopped by SIGINT: exit status 130", "stopped by Ctrl-C"}, stderr
    assert (tmp_path / "log/model.safetensors").exists()
    deadline = time.monotonic() + HANG
    while any(os.path.exists(f"/proc/{pid}") for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in workers if os.path.exists(f"/proc/{pid}")]


def test_workers_in_the_middle_of_a_step_can_be_closed():
    """After an interruption their answers are in the pipes, or half of one is: who waits for them waits for ever."""
    venv = make_vec_env("CartPole-v1", 2, vec="async")
    if os.path.isdir("/proc"):  # Ctrl-C in a terminal was left to this process from their start on, Slurm's signals too
        for process in venv.processes:
            status = dict(re.findall(r"(\w+):\t(.*)", Path(f"/proc/{process.pid}/status").read_text()))
            for name, number in ("SigBlk", signal.SIGINT), ("SigCgt", signal.SIGTERM), ("SigCgt", signal.SIGUSR1):
                assert int(status[name], 16) >> number - 1 & 1, (name, number)
            os.kill(process.pid, signal.SIGTERM)
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    venv.reset(seed=0)
    venv.step_async(np.zeros(2, int))
    venv.parent_pipes[0].recv()  # taken by the step that was interrupted
    closing = threading.Thread(target=close, args=(venv,), kwargs={"at_once": True}, daemon=True)
    closing.start()
    closing.join(HANG)
    assert not closing.is_alive() and venv.closed
    assert not any(process.is_alive() for process in venv.processes)


def test_worker_error_is_an_ordinary_exception():
    assert issubclass(WorkerError, RuntimeError)
