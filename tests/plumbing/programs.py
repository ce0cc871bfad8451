"""Programs for tests that need several processes; each is run by mpirun as `programs.py NAME [ARGUMENTS]`."""

import sys
import time

import numpy as np

from baselines_lite.common.errors import UserError
from baselines_lite.common.mpi import get_comm


def collectives():
    comm = get_comm()
    x = np.arange(3.0) + comm.rank
    np.testing.assert_array_equal(comm.mean(x.copy()), np.arange(3) + (comm.size - 1) / 2)
    np.testing.assert_array_equal(comm.sum(x.copy()), comm.size * (np.arange(3) + (comm.size - 1) / 2))
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


def equal_parameters():
    """50 updates: parameters bitwise equal over ranks, while first observations and actions differ."""
    from baselines_lite import ppo2
    from baselines_lite.common import rollout
    from baselines_lite.common.flat import get_flat

    comm, first = get_comm(), []
    collect = rollout.Collector.collect

    def recording(self):
        result = collect(self)
        if not first:
            first.append((result.obs[0].tolist(), result.actions.tolist()))
        return result

    rollout.Collector.collect = recording
    policy = ppo2.learn("Pendulum-v1", 50 * 64 * comm.size, num_env=2, nsteps=32, nminibatches=2, noptepochs=2,
                        normalize_observations=True, normalize_rewards=True, print_interval=1e9)
    comm.check_synced(get_flat(policy.trainable_variables))
    comm.check_synced(np.concatenate([np.ravel(v) for v in policy.normalize.state().values()]))
    obs, actions = zip(*comm.gather(first[0]))
    assert all(obs[0] != o for o in obs[1:]) and all(actions[0] != a for a in actions[1:])
    assert policy.normalize.obs.count == comm.size * (1024 + 50 * 64)
    print(f"rank {comm.rank} agrees", flush=True)


def equal_parameters_from_pixels():
    """10 updates of a convolutional policy, in which TensorFlow, not XLA, runs between two Allreduces."""
    from baselines_lite import ppo2
    from baselines_lite.common.flat import get_flat

    comm = get_comm()
    policy = ppo2.learn("PongNoFrameskip-v4", 10 * 32 * comm.size, network="cnn_small", num_env=2, nsteps=16,
                        nminibatches=2, noptepochs=2, print_interval=1e9)
    comm.check_synced(get_flat(policy.trainable_variables))
    print(f"rank {comm.rank} agrees", flush=True)


def one_rank_equals_two(target_kl):
    """An update of 2N samples on one process = an update of N on each of two, in float64, the shuffle fixed."""
    import gymnasium as gym
    import tensorflow as tf

    from baselines_lite.common.flat import get_flat
    from baselines_lite.common.mpi import Comm
    from baselines_lite.common.mpi_adam import MpiAdam
    from baselines_lite.common.policy import ActorCritic
    from baselines_lite.common.rollout import Rollout
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
    logp = start.values_and_logp(obs.reshape(-1, d), actions.reshape(-1, d))[1].reshape(T, 2 * N)

    def run(columns, comm, indices):
        policy = ActorCritic(space, space, seed=0, dtype=tf.float64)
        adam = MpiAdam(policy.trainable_variables, comm, max_grad_norm=cfg.max_grad_norm)
        update = Update(policy, adam, cfg, comm, rng)
        update.shuffle = lambda nbatch: indices
        part = [a[:, columns] for a in (obs, actions, advs, returns, values, logp)]
        none = np.zeros_like(part[2], bool)
        rollout = Rollout(part[0], part[1], part[2], none, none, part[4], part[4], part[5], [], 0.0, 0.0)
        stats = update(rollout, part[2], part[3], 1.0)
        return get_flat(policy.trainable_variables), stats

    # Sample t * N + n of rank r is sample t * 2N + r * N + n of the whole.
    local = np.stack([np.random.default_rng(e).permutation(T * N) for e in range(3)]).reshape(12, -1).astype(np.int32)
    t, n = np.divmod(local, N)
    whole = np.concatenate([t * 2 * N + r * N + n for r in range(2)], axis=1).astype(np.int32)
    mine, my_stats = run(slice(comm.rank * N, (comm.rank + 1) * N), comm, local)
    together, stats = run(slice(None), Comm(), whole)
    np.testing.assert_allclose(mine, together, rtol=1e-9, atol=1e-12)
    for name, value in stats.items():
        np.testing.assert_allclose(my_stats[name], value, rtol=1e-9, atol=1e-12, err_msg=name)
    assert not np.array_equal(mine, get_flat(start.trainable_variables))
    print(f"rank {comm.rank} agrees", flush=True)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
