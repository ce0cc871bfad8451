"""The replay buffer against one that stores every observation whole, and its draws against their probabilities."""

import os
from collections import deque

import numpy as np
import pytest

from baselines_lite import UserError
from baselines_lite.common.sampling import memory
from baselines_lite.common.sampling.replay_buffer import Index, PrioritizedReplayBuffer, ReplayBuffer, SegmentTree

ACTION = np.zeros((), np.int64)


class Games:
    """N random games: observations are the last `stack` frames, black before the first; resets, cuts, dead steps."""

    def __init__(self, num_env, stack, rng):
        self.N, self.rng = num_env, rng
        self.obs = np.zeros((num_env, 3, stack), np.uint8)
        self.obs[..., -1] = self.frames()

    def frames(self):
        return self.rng.integers(1, 256, size=(self.N, 3), dtype=np.uint8)

    def step(self):
        """(transition arrays, what ReplayBuffer.add takes)."""
        rng, N, before, frames = self.rng, self.N, self.obs, self.frames()
        actions, rewards = rng.integers(9, size=N), rng.integers(-3, 4, size=N).astype(np.float32)
        fresh, dead = rng.random(N) < 0.1, rng.random(N) < 0.05
        terminated = fresh & (rng.random(N) < 0.5) | (rng.random(N) < 0.05)  # also without a reset: a lost life
        after = np.concatenate([before[..., 1:], frames[..., None]], axis=-1)
        seen = after.copy()
        seen[fresh] = 0
        seen[fresh, :, -1] = frames[fresh]
        # A cut episode's last observation need not be the one before, shifted.
        finals = {int(n): rng.integers(1, 256, size=before.shape[1:], dtype=np.uint8)
                  for n in np.flatnonzero(fresh & ~terminated)}
        for n, final in finals.items():
            after[n] = final
        self.obs = seen
        return (before, actions, rewards, after, terminated, ~dead), (actions, rewards, terminated, frames, fresh,
                                                                      finals, ~dead)


@pytest.mark.parametrize(("stack", "size", "num_env", "steps"), [(4, 350, 50, 20_000), (4, 4, 4, 200), (1, 33, 3, 500)])
def test_frames_stored_once_give_back_what_storing_everything_does(stack, size, num_env, steps):
    rng = np.random.default_rng(0)
    games = Games(num_env, stack, rng)
    example = np.zeros(3, np.uint8)
    buffer = ReplayBuffer(size, num_env, example, ACTION, stack=stack)
    buffer.begin(games.obs[..., -1])
    naive = deque(maxlen=size // num_env)
    for step in range(steps):
        whole, parts = games.step()
        if stack == 1:
            *head, finals, usable = parts
            parts = (*head, {n: f[..., 0] for n, f in finals.items()}, usable)
        naive.append(whole)
        buffer.add(*parts)
        if step % max(1, steps // 200) == 0 or step < 20:
            assert len(buffer) == len(naive) * num_env
            back, envs = np.meshgrid(np.arange(1, len(naive) + 1), np.arange(num_env), indexing="ij")
            back, envs = back.ravel(), envs.ravel()
            got = buffer[Index((buffer._head - back) % buffer._slots, envs)]
            obs, actions, rewards, next_obs, terminated, usable = (
                np.stack([naive[-b][k][n] for b, n in zip(back, envs)]) for k in range(6))
            if stack == 1:
                obs, next_obs = obs[..., 0], next_obs[..., 0]
            np.testing.assert_array_equal(got.obs, obs)
            np.testing.assert_array_equal(got.next_obs[~terminated], next_obs[~terminated])
            np.testing.assert_array_equal(got.actions, actions)
            np.testing.assert_array_equal(got.rewards, rewards)
            np.testing.assert_array_equal(got.terminated, terminated)
    assert len(buffer._finals) <= (size // num_env + stack) * num_env


def filled(kind, steps, size=20, num_env=2, **options):
    """A buffer after some steps whose rewards say when they were stored, and which transitions can be drawn."""
    rng = np.random.default_rng(1)
    buffer = kind(size, num_env, np.zeros(1, np.float32), ACTION, **options)
    buffer.begin(np.zeros((num_env, 1)))
    stored = []
    for t in range(steps):
        usable = rng.random(num_env) < 0.8
        rewards = num_env * t + np.arange(num_env)
        buffer.add(np.zeros(num_env), rewards, np.zeros(num_env, bool), np.zeros((num_env, 1)),
                   np.zeros(num_env, bool), None, usable)
        stored.append(rewards[usable])
    return buffer, np.concatenate(stored[-size // num_env :]).astype(int)


def assert_drawn(buffer, expected, probabilities, draws=40_000):
    """Chi-square over all drawable transitions, the oldest and the newest included; nothing else is ever drawn."""
    rng = np.random.default_rng(2)
    rewards = np.concatenate([buffer[buffer.sample(rng, 100)].rewards for _ in range(draws // 100)]).astype(int)
    values, counts = np.unique(rewards, return_counts=True)
    np.testing.assert_array_equal(values, expected)
    chi2 = (np.square(counts - draws * probabilities) / (draws * probabilities)).sum()
    assert chi2 < len(expected) + 5 * np.sqrt(2 * len(expected))


@pytest.mark.parametrize("steps", [1, 4, 10, 11, 23, 57])
def test_uniform_draws(steps):
    buffer, expected = filled(ReplayBuffer, steps)
    assert_drawn(buffer, expected, np.full(len(expected), 1 / len(expected)))


def test_a_draw_looks_at_what_it_draws_alone():
    """Where it hits steps that cannot be drawn, too."""
    looked = []

    class Watched(np.ndarray):
        def __getitem__(self, index):
            found = super().__getitem__(index)
            looked.append(np.size(found))
            return found

    buffer, _ = filled(ReplayBuffer, 500, size=1000)
    buffer._usable = buffer._usable.view(Watched)
    buffer.sample(np.random.default_rng(0), 50)
    assert len(looked) > 1 and max(looked) == 50


@pytest.mark.parametrize("seed", range(20))
def test_where_anything_can_be_drawn_nothing_else_is(seed):
    """And where nothing can be, drawing still ends."""
    rng = np.random.default_rng(seed)
    buffer = ReplayBuffer(10, 2, np.zeros(1, np.float32), ACTION)
    buffer.begin(np.zeros((2, 1)))
    latest = deque(maxlen=5)
    for _ in range(60):
        usable = rng.random(2) < 0.1
        buffer.add(np.zeros(2), usable, np.zeros(2, bool), np.zeros((2, 1)), np.zeros(2, bool), None, usable)
        latest.append(usable)
        drawn = buffer[buffer.sample(rng, 5)].rewards
        assert (drawn == np.any(latest)).all()


def test_the_latest_observations_are_those_that_can_be_drawn():
    buffer = ReplayBuffer(10, 2, np.zeros(1, np.float32), ACTION, stack=1)
    seen = np.arange(16.0).reshape(8, 2, 1)
    usable = np.array([[1, 1], [1, 0], [0, 0], [1, 1], [0, 1], [1, 1], [1, 0]], bool)
    buffer.begin(seen[0])
    for now, frames in zip(usable, seen[1:], strict=True):
        buffer.add(np.zeros(2), np.zeros(2), np.zeros(2, bool), frames, np.zeros(2, bool), None, now)
    for steps in (1, 2, 4):
        np.testing.assert_array_equal(buffer.latest(steps), seen[7 - steps : 7][usable[7 - steps :]])
    np.testing.assert_array_equal(buffer.latest(7), seen[2:7][usable[2:]])  # older ones are gone


@pytest.mark.parametrize("steps", [1, 4, 10, 11, 23, 57])
def test_draws_by_priority(steps):
    buffer, expected = filled(PrioritizedReplayBuffer, steps, alpha=0.6, epsilon=1e-2)
    assert_drawn(buffer, expected, np.full(len(expected), 1 / len(expected)))  # new ones are all alike
    rng = np.random.default_rng(3)
    errors = dict(zip(expected.tolist(), rng.uniform(-3, 3, size=len(expected)), strict=True))
    for _ in range(50):
        index = buffer.sample(rng, 40)
        drawn = buffer[index].rewards.astype(int)
        buffer.set_errors(index, np.array([errors[r] for r in drawn]))
    powers = (np.abs([errors[r] for r in expected]) + 1e-2) ** 0.6
    assert_drawn(buffer, expected, powers / powers.sum())
    index = buffer.sample(rng, 40)
    p = (np.abs([errors[r] for r in buffer[index].rewards.astype(int)]) + 1e-2) ** 0.6 / powers.sum()
    weights = (len(expected) * p) ** -0.5
    largest = (len(expected) * powers.min() / powers.sum()) ** -0.5
    np.testing.assert_allclose(buffer.weights(index, 0.5), weights / largest, rtol=1e-5)
    buffer.add(np.zeros(2), np.full(2, 1e6), np.zeros(2, bool), np.zeros((2, 1)), np.zeros(2, bool))
    newest = np.zeros(2, np.int64) + (buffer._head - 1) % buffer._slots
    np.testing.assert_allclose(buffer.state()["priorities"][newest * 2 + [0, 1]], max(1.0, powers.max()))


def test_an_error_that_is_not_finite_leaves_the_priority_as_it_was():
    buffer, _ = filled(PrioritizedReplayBuffer, 10, alpha=0.6, epsilon=1e-2)
    rng = np.random.default_rng(0)
    buffer.set_errors(buffer.sample(rng, 40), rng.normal(size=40))
    index, before = buffer.sample(rng, 3), buffer.state()
    buffer.set_errors(index, np.array([np.nan, np.inf, -np.inf], np.float32))
    after = buffer.state()
    np.testing.assert_array_equal(after["priorities"], before["priorities"])
    assert after["highest"] == before["highest"] and np.isfinite(buffer.weights(buffer.sample(rng, 40), 1.0)).all()


def test_the_tree_finds_what_a_cumulative_sum_does():
    rng = np.random.default_rng(4)
    for leaves in (1, 2, 5, 64, 100, 5_000, 200_000):  # of two levels from 131,072 on
        tree, values = SegmentTree(leaves, np.add, 0.0), rng.integers(0, 4, size=leaves).astype(float)
        values[0] += 1
        tree[np.arange(leaves)] = values
        assert tree.total == values.sum()
        mass = np.arange(values.sum() * 4) / 4  # every border, up to the very end; of many, a part
        mass = mass[:: 1 + len(mass) // 5_000]
        np.testing.assert_array_equal(tree.find(mass), np.searchsorted(np.cumsum(values), mass, side="right"))
        assert values[tree.find(np.array([values.sum() * (1 + 1e-16)]))] > 0


@pytest.mark.parametrize("leaves", [1, 2, 31, 32, 33, 1024, 1025, 200_000])
def test_what_a_tree_holds_depends_on_its_leaves_alone(leaves):
    """Not on how often and in which order they were set: a run that goes on draws the same."""
    rng = np.random.default_rng(5)
    for operation, neutral in ((np.add, 0.0), (np.minimum, np.inf)):
        tree, again = (SegmentTree(leaves, operation, neutral) for _ in range(2))
        for _ in range(20):
            some = rng.integers(leaves, size=rng.integers(1, 60))
            tree[some] = rng.random(len(some))
        tree[np.array([leaves - 1] * 3)] = np.array([0.1, 0.2, 0.3])
        assert tree[np.array([leaves - 1])] == 0.3
        again.fill(tree.leaves)
        assert all(np.array_equal(a, b) for a, b in zip(tree._levels, again._levels, strict=True))
        assert np.array_equal(tree._top, again._top)
        assert tree.total == again.total == pytest.approx(operation.reduce(tree.leaves))


def test_a_buffer_that_does_not_fit_is_refused_before_anything_is_taken(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 8e9)
    frame = np.zeros((84, 84), np.uint8)
    assert 6.3e9 < ReplayBuffer(900_000, 8, frame, ACTION, stack=4).nbytes < 7e9
    with pytest.raises(UserError, match=r"buffer_size=1000000 needs 8\.1 GB here.* 8\.0 GB are free"):
        ReplayBuffer(1_000_000, 1, frame, ACTION, stack=4)
    with pytest.raises(UserError, match="2 rank"):
        ReplayBuffer(500_000, 1, frame, ACTION, stack=4, ranks=2)


def test_where_nothing_can_be_drawn_drawing_still_ends():
    for kind, options in ((ReplayBuffer, {}), (PrioritizedReplayBuffer, dict(alpha=0.6, epsilon=1e-2))):
        buffer = kind(20, 2, np.zeros(1, np.float32), ACTION, **options)
        buffer.begin(np.zeros((2, 1)))
        buffer.add(np.zeros(2), np.zeros(2), np.zeros(2, bool), np.zeros((2, 1)), np.zeros(2, bool), None, False)
        index = buffer.sample(np.random.default_rng(0), 5)
        assert len(buffer[index].rewards) == 5 and (buffer[index].rewards == 0).all()
        if kind is PrioritizedReplayBuffer:
            assert (buffer.weights(index, 0.4) == 1).all()


@pytest.mark.skipif(not os.path.exists("/proc/meminfo"), reason="needs /proc")
def test_memory_of_this_machine_is_known():
    assert 0 < memory.available() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
