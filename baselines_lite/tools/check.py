"""Does an environment keep Gymnasium's rules, and how is it to train in? Steps it, and says so in sentences.

    baselines-lite check CartPole-v1
    baselines-lite check my_module:MyEnv-v0 --steps=5000
"""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from baselines_lite.command_line import complete, parse
from baselines_lite.common.system.errors import UserError, counted
from baselines_lite.common.system.options import Json, option, option_table, override


@dataclasses.dataclass(frozen=True)
class CheckOptions:
    """What `check` knows."""

    steps: int = option(1000, "steps with random actions", low=1)
    seed: int = option(0, "seed of the environment and the actions", low=0)
    env_kwargs: Json | None = option(None, "keywords for the environment's constructor, as JSON")
    help: bool = option(False, "print this text")


def main(arguments: Sequence[str]) -> int:
    """Runs the command `check`; 1 where a rule is broken. Raises UserError for what cannot be looked at."""
    names: list[str] = []
    options = override(CheckOptions(), complete(parse(arguments, names), CheckOptions))
    if options.help or len(names) != 1:
        if not options.help:
            raise UserError("which environment? baselines-lite check ID, for example CartPole-v1 or my_module:MyEnv-v0")
        print(f"usage: baselines-lite check ID [--FLAG=VALUE ...]\n\n{option_table(CheckOptions())}")
        return 0
    faults = 0
    for is_fault, sentence in look(names[0], options):
        print(f"{'broken: ' if is_fault else ''}{sentence}", flush=True)
        faults += is_fault
    print(f"{counted(faults, 'rule')} of Gymnasium broken" if faults else "no rule of Gymnasium is broken")
    return int(faults > 0)


def look(env_id: str, options: CheckOptions) -> Iterator[tuple[bool, str]]:
    """Sentences about an environment, each with whether it tells of a rule that is broken."""
    from baselines_lite.common.envs.env_rules import broken_rule, fault_of_class, fault_of_reset, fault_of_step
    from baselines_lite.common.envs.make import find_spec, make_raw, with_kwargs
    from baselines_lite.common.networks.distributions import make_pd
    from baselines_lite.common.networks.observations import Encoder, brief

    try:
        env = make_raw(find_spec(with_kwargs(env_id, options.env_kwargs)))
    except UserError as error:
        if "must inherit from the gymnasium.Env class" not in str(error):
            raise
        yield True, str(error)  # as classes of the old Gym do
        return
    if fault := fault_of_class(env):
        yield True, fault
        return
    observations, actions = env.observation_space, env.action_space
    yield False, f"observations {brief(observations)}, actions {brief(actions)}"
    for name, make in (("observations", lambda: Encoder(observations)), ("actions", lambda: make_pd(actions))):
        try:
            make()
        except UserError as error:
            yield False, f"its {name} cannot be trained with: {error}"
    actions.seed(options.seed)
    told: set[str] = set()

    def once(fault: str | None) -> Iterator[tuple[bool, str]]:
        """A fault, where it has not been told yet; numbers in it, and what follows a colon, do not make it another."""
        key = "".join(letter for letter in (fault or "").partition(":")[0] if not letter.isdigit())
        if fault and key not in told:
            told.add(key)
            yield True, fault

    def reset(**seed: int) -> str | None:
        """Begins an episode, whose first observation `obs` is then; what is wrong with that."""
        nonlocal obs
        try:
            result = env.reset(**seed)
        except Exception as error:
            told_of = broken_rule([env], error)
            given = "".join(f"{name}={value}" for name, value in seed.items())
            return str(told_of) if told_of else f"reset({given}) raised {type(error).__name__}: {error}"
        if fault := fault_of_reset(result, observations):
            return f"reset() gave {fault}"
        obs = result[0]
        return None

    obs, firsts = None, []
    for _ in range(2):
        if fault := reset(seed=options.seed):
            yield True, fault
            return
        yield from once(not_finite("reset() gave", "an observation", obs))
        firsts.append(copy.deepcopy(obs))
    if not equal(*firsts):
        yield True, f"reset(seed={options.seed}) gave two observations that differ: draw from self.np_random"
    lengths, returns, length, total, seconds, outside = [], [], 0, 0.0, 0.0, 0
    for _ in range(options.steps):
        action = actions.sample()
        start = time.perf_counter()
        try:
            result = env.step(action)
        except Exception as error:
            told_of = broken_rule([env], error)
            yield True, str(told_of) if told_of else f"step({action!r}) raised {type(error).__name__}: {error}"
            return
        seconds += time.perf_counter() - start
        if fault := fault_of_step(result, observations):
            yield True, f"step() gave {fault}"
            return
        obs, reward, terminated, truncated, _ = result
        yield from once(not_finite("step() gave", "a reward", reward))
        yield from once(unsound := not_finite("step() gave", "an observation", obs))
        outside += unsound is None and not observations.contains(obs)
        length, total = length + 1, total + float(reward)
        if terminated or truncated:
            lengths.append(length)
            returns.append(total)
            length, total = 0, 0.0
            if fault := reset():
                yield True, fault
                return
    if outside:
        yield True, (f"{outside:,} of {counted(options.steps, 'observation')} lie outside of the space's bounds or "
                     "type: runs here do not depend on that, other libraries may")
    yield False, (f"{options.steps / seconds:,.0f} steps/s; " + (
        f"{counted(len(lengths), 'episode')} of {min(lengths)} to {max(lengths)} steps, returns {min(returns):.5g} to "
        f"{max(returns):.5g}, with random actions" if lengths else
        f"no episode has ended within {counted(options.steps, 'step')}: is there a limit of time?"))
    yield what_checkpoints_keep(env)
    if not repeats(env, options.seed):
        yield False, "the same seed and actions gave other observations: runs in it do not repeat themselves"
    env.close()


def what_checkpoints_keep(env: Any) -> tuple[bool, str]:
    """Whether its state can be kept in checkpoints; it is a fault where it says so, and that is not so."""
    from baselines_lite.common.envs.env_state import env_state, restore_env, unknown_part

    if (part := unknown_part(env)) is not None:
        return False, (f"the state of {part} cannot be kept in checkpoints: environments begin anew at fixed updates, "
                       "unless it offers get_state and set_state")
    try:
        restore_env(env, env_state(env))
    except (UserError, ValueError) as error:
        return True, f"its state cannot be kept in checkpoints: {error}"
    return False, "its state can be kept in checkpoints"


def repeats(env: Any, seed: int, steps: int = 50) -> bool:
    """Whether an environment does the same again from the same seed with the same actions."""
    seen = []
    for _ in range(2):
        env.action_space.seed(seed)
        found = [env.reset(seed=seed)[0]]
        for _ in range(steps):
            obs, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            found += [copy.deepcopy(obs), reward, terminated]
            if terminated or truncated:
                break
        seen.append(found)
    return len(seen[0]) == len(seen[1]) and all(map(equal, *seen))


def leaves_of(obs: Any) -> Iterator[Any]:
    """The arrays and numbers in an observation."""
    if isinstance(obs, dict | tuple | list):
        for inner in obs.values() if isinstance(obs, dict) else obs:
            yield from leaves_of(inner)
    else:
        yield obs


def not_finite(gave: str, what: str, value: Any) -> str | None:
    """The sentence about numbers that are not finite; None where they are."""
    for leaf in map(np.asarray, leaves_of(value)):
        if leaf.dtype.kind in "fc" and not np.isfinite(leaf).all():
            return f"{gave} {what} that is not finite: {leaf}"
    return None


def equal(a: Any, b: Any) -> bool:
    """Whether two observations are the same; NaN is like NaN."""
    pairs = zip(map(np.asarray, leaves_of(a)), map(np.asarray, leaves_of(b)), strict=True)
    return all(np.array_equal(x, y, equal_nan=x.dtype.kind in "fc" and y.dtype.kind in "fc") for x, y in pairs)
