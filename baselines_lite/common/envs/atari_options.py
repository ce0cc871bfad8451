"""How an Atari game is played. Apart from atari.py, which loads the emulator."""

from __future__ import annotations

import dataclasses

from baselines_lite.common.system.options import option


@dataclasses.dataclass(frozen=True)
class AtariOptions:
    """How an Atari game is played; see atari.py. None: as the environment's id says."""

    sticky: float | None = option(None, "probability that the emulator repeats the last action for a frame (default: "
                                  "the id's, 0 for ...NoFrameskip-v4, 0.25 for ALE/...-v5)", low=0, high=1)
    full_action_space: bool | None = option(None, "all 18 actions instead of those the game uses (default: the id's)")
    frame_skip: int = option(4, "frames per step; the last two are merged by their maximum", low=1)
    frame_stack: int = option(4, "steps that an observation shows", low=1)
    frame_cap: int = option(108_000, "frames after which a game is cut off: a time limit, not a death", low=1)
    noop_max: int = option(30, "a game begins with up to so many frames of doing nothing, drawn uniformly", low=0)
    fire_reset: bool = option(True, "press FIRE as the first of them where the game has it")
    life_loss: bool = option(True, "a lost life ends the training episode, though not the game")
    clip_rewards: bool = option(True, "train on the sign of the rewards; logs keep raw scores")
    env_threads: int | None = option(None, "emulator threads per rank (default: as --threads)", low=1)
