"""One environment of an id."""

from __future__ import annotations

import copy
import difflib
import re
import sys
from collections.abc import Callable
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec

from baselines_lite.common.envs.atari_options import AtariOptions
from baselines_lite.common.envs.env_rules import Checked
from baselines_lite.common.system.errors import UserError
from baselines_lite.common.system.options import Json
from baselines_lite.common.system.tf_setup import imported

# Gymnasium's extra that brings a family's dependencies, where it is not our default.
EXTRAS = {"mujoco": "baselines-lite[mujoco]", "box2d": "gymnasium[box2d]"}


class DropInfo(gym.Wrapper):
    """Forgets `info`: SyncVectorEnv batches every key of it into arrays at every step, 5 us on HalfCheetah (of 45).

    It cannot where shapes vary, as those of a list of legal moves.
    """

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return self.env.reset(seed=seed, options=options)[0], {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, _ = self.env.step(action)
        return obs, reward, terminated, truncated, {}


class Staggered(gym.wrappers.TimeLimit):
    """A time limit that can come `staggered_by` steps early in an episode that has just begun: see `come_early`."""


def come_early(env: gym.Env) -> None:
    """The episode that has just begun is a run's first: if it is to be shorter than others, it will be.

    Whoever steps the outermost layer says so. The time limit itself cannot tell which episode it is in: wrappers may
    reset it with a seed each time, or keep the seed from it.
    """
    while isinstance(env, gym.Wrapper):
        if isinstance(env, Staggered):
            env._elapsed_steps += env.staggered_by
        env = env.env


def staggered(factory: Callable[[], gym.Env], age: float) -> gym.Env:
    """An environment of which the first episode, if a time limit ends it, is shorter by the share `age`, 0 <= age < 1.

    Environments that begin together, and all run into the same limit, stay in step for ever, so that rollouts of 256
    steps see one quarter of the episode, then the next. ppo2 on Swimmer, 32 environments: 43 in step, 113 staggered.
    """
    env = layer = factory()
    while isinstance(layer, gym.Wrapper):
        if type(layer) is gym.wrappers.TimeLimit and (steps := int(age * layer._max_episode_steps)):
            layer.__class__, layer.staggered_by = Staggered, steps  # in its place: one more layer would take time
        layer = layer.env
    return env


def family_of(spec: EnvSpec | None) -> str:
    """The family whose preset fits: atari, mujoco, box2d, classic_control, toy_text or other."""
    module = "" if spec is None else entry_module(spec)
    if module.startswith("ale_py"):
        return "atari"
    for family in ("mujoco", "box2d", "classic_control", "toy_text"):
        if module.startswith(f"gymnasium.envs.{family}"):
            return family
    return "other"


def entry_module(spec: EnvSpec) -> str:
    """The module from which an environment is made, with more behind it where that is a text."""
    entry = spec.entry_point
    return entry if isinstance(entry, str) else getattr(entry, "__module__", None) or ""


def with_kwargs(env: Any, kwargs: Json | None) -> Any:
    """An environment's id as the spec of it with other keywords for its constructor; whatever it is where there are
    none. Raises UserError for what takes none.
    """
    if kwargs is None:
        return env
    if not isinstance(env, str):
        raise UserError("env_kwargs are for an environment's id: what is an object or makes one has its keywords")
    spec = copy.deepcopy(find_spec(env))
    if family_of(spec) == "atari":
        raise UserError(f"env_kwargs={kwargs} are not for Atari games, whose options are --frame_skip, --sticky and "
                        "others; --help --env=ID lists them")
    spec.kwargs.update(kwargs.value)
    return spec


def find_spec(env_id: str | EnvSpec) -> EnvSpec:
    """The spec of an id, or of `module:Id` after importing the module. Raises UserError with the nearest ids."""
    if isinstance(env_id, EnvSpec):
        return env_id
    module, _, name = env_id.rpartition(":")
    if module:
        imported(module, f"the module of the environment {env_id!r}")
    else:
        register_atari(name)
    try:
        return gym.spec(name)
    except gym.error.Error as error:
        prefix = f"{module}:" if module else ""
        near = [prefix + each for each in difflib.get_close_matches(name, ids_after(module), n=3, cutoff=0.6)]
        hint = f"did you mean {' or '.join(near)}?" if near else f"Gymnasium says: {str(error).splitlines()[0]}"
        if not near and hasattr(sys.modules.get(module), name):
            hint = f"the module has {name}, but it is not registered: gymnasium.register('{name}-v0', {name}) there"
        raise UserError(f"unknown environment {env_id!r}; {hint}") from None


def ids_after(module: str) -> list[str]:
    """The registered ids; where a module has registered some of its own, only these."""
    names = module.partition(".")[0]
    own = [name for name, spec in gym.registry.items() if module and entry_module(spec).partition(".")[0] == names]
    return own or list(gym.registry)


def register_atari(name: str) -> None:
    """Registers ale-py's ids where the name may be one of them."""
    if name not in gym.registry and re.fullmatch(r"ALE/.*|[A-Za-z0-9]+-v[045]", name):
        import ale_py

        gym.register_envs(ale_py)


def make_env(spec: EnvSpec, render_mode: str | None = None) -> gym.Env:
    """One environment of a registered id. Raises UserError where it cannot be made, naming what is missing."""
    # Gymnasium's checks at every step cost as much as CartPole itself: env_rules looks at the first one, and that
    # environments are reset before they are stepped is for our tests.
    spec = copy.deepcopy(spec)
    spec.order_enforce = False
    try:
        return gym.make(spec, disable_env_checker=True, **({"render_mode": render_mode} if render_mode else {}))
    except gym.error.DependencyNotInstalled as error:
        cause = error.__cause__ if isinstance(error.__cause__, ImportError) else error
        if isinstance(cause, ImportError) and not isinstance(cause, ModuleNotFoundError):  # it is there, and broken
            raise UserError(f"the environment {spec.id} needs a package that cannot be imported: {cause}") from None
        extra = EXTRAS.get(family_of(spec))
        hint = f"pip install '{extra}'" if extra else "install what it asks for"
        raise UserError(f"the environment {spec.id} needs a missing package ({cause}); {hint}") from None
    except Exception as error:
        raise UserError(f"the environment {spec.id} cannot be made: {type(error).__name__}: {error}") from error


def make_raw(spec: EnvSpec) -> gym.Env:
    """One environment without checks around it, as quiet as in a run; a game of Atari's as runs play it."""
    if family_of(spec) == "atari":
        return make_one(spec)
    silence_mujoco(spec)
    return make_env(spec)


def make_one(env_id: str | EnvSpec, render_mode: str | None = None, verbose: bool = False,
             atari: AtariOptions | None = None) -> gym.Env:
    """One environment of an id or `module:Id`, ready to be stepped. Raises UserError where it cannot be made."""
    spec = find_spec(env_id)
    if family_of(spec) == "atari":
        from baselines_lite.common.envs.atari import AtariGame

        game = AtariGame(spec, atari or AtariOptions(), render_mode and "rgb_array")
        return gym.wrappers.HumanRendering(game) if render_mode == "human" else game
    if not verbose:
        silence_mujoco(spec)
    env = make_env(spec, render_mode)
    if family_of(spec) == "classic_control":
        return env  # which has no info to forget
    return DropInfo(Checked(env) if family_of(spec) == "other" else env)  # Gymnasium's own keep the rules


def silence_mujoco(spec: EnvSpec) -> None:
    """Keeps MuJoCo's deprecation notes off the terminal and its MUJOCO_LOG.TXT out of the working directory.

    Other warnings (an unstable simulation, say) go to stderr, each once.
    """
    if family_of(spec) != "mujoco":
        return
    try:
        import mujoco
    except ImportError:
        return  # make_env says so
    mujoco.set_mju_user_warning(_print_once)


_printed: set[str] = set()


def _print_once(message: str) -> None:
    if "deprecated" not in message and message not in _printed:
        _printed.add(message)
        print(f"MuJoCo: {message.strip()}", file=sys.stderr)
