"""What editors and type checkers see of this package; when it runs, this file is not read.

`baselines-lite stubs PACKAGE` writes it from the options in config.py. When they change, do that again or delete it.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from baselines_lite.common.envs.vec_env import EnvLike
from baselines_lite.common.experiment.report import AfterUpdate
from baselines_lite.common.policies.actor_critic import ActorCritic

from .config import PRESETS, Config

__all__ = ["PRESETS", "Config", "learn"]

def learn(
    env: EnvLike,
    total_timesteps: float | None = None,
    *,
    callback: Callable[[AfterUpdate], Any] | None = None,
    config: Config | Mapping[str, Any] | str | Path | None = None,
    num_env: int = 8,
    nsteps: int = 128,
    gamma: float = 0.99,
    network: str = "mlp",
    value_network: Literal["shared", "copy"] = "copy",
    time_limit: Literal["bootstrap", "terminal"] = "bootstrap",
    streams: Literal["rank", "same"] = "rank",
    stagger: bool = True,
    statistics: Literal["global", "rank"] = "global",
    lam: float = 0.97,
    ent_coef: float = 0.0,
    logstd_init: float = 0.0,
    action_scale: bool | None = None,
    normalize_observations: bool = False,
    normalize_rewards: bool = False,
    vf_lr: str | float | Callable[[float], float] = "1e-3",
    vf_iters: int = 5,
    vf_minibatches: int = 32,
    cg_iters: int = 10,
    fisher_every: int = 5,
    max_kl: float = 0.01,
    penalty_coef: float | None = None,
    cg_damping: float = 0.1,
    backtracks: int = 10,
    shrink: float = 0.8,
    accept_ratio: float = 0.1,
    seed: int = 0,
    num_timesteps: int = 1000000,
    schedule_timesteps: int | None = None,
    preset: str = "default",
    env_type: Literal["atari", "mujoco", "box2d", "classic_control", "toy_text", "other"] | None = None,
    env_kwargs: str | Mapping[str, Any] | None = None,
    reward_scale: float = 1.0,
    tensorboard: bool = False,
    track: str | None = None,
    log_path: str | Path | None = None,
    log_interval: int = 1,
    view: Literal["live", "lines", "table"] | None = None,
    print_interval: float | None = None,
    save_path: str | Path | None = None,
    checkpoint_interval: int | None = None,
    checkpoint_seconds: float = 30.0,
    keep_checkpoints: int = 3,
    resume: str | Path | None = None,
    load_path: str | Path | None = None,
    target_return: float | None = None,
    eval_interval: int = 0,
    eval_episodes: int = 10,
    eval_deterministic: bool | None = None,
    save_video_interval: int = 0,
    save_video_length: int = 200,
    threads: int | None = None,
    vec: Literal["sync", "async", "native"] | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
    stall_timeout: float = 1800.0,
    dry_run: bool = False,
    verbose: bool = False,
    sticky: float | None = None,
    full_action_space: bool | None = None,
    frame_skip: int = 4,
    frame_stack: int = 4,
    frame_cap: int = 108000,
    noop_max: int = 30,
    fire_reset: bool = True,
    life_loss: bool = True,
    clip_rewards: bool = True,
    env_threads: int | None = None,
    num_layers: int = ...,
    num_hidden: int = ...,
    sizes: str | int | Sequence[int] | None = ...,
    activation: Literal["tanh", "relu", "elu"] = ...,
    layer_norm: bool = ...,
    convs: str = ...,
) -> ActorCritic:
    """Trains a policy in `env` for `total_timesteps` environment steps over all environments and ranks.

    env: a Gymnasium id, `module:Id`, an Env, a factory of Envs, or a VectorEnv. total_timesteps: by default a million.
    Options by keyword: those of `experiment.config.RunOptions` (seed, log_path, save_path, ...), of `Config`, and of
    the network. Raises UserError for options that cannot be meant, and spaces and networks that are not supported.

    Defaults are those before the preset's for a family of environments. A network of one's own has its options in
    `config`.

    callback: called after each update; where it returns True, the run ends.
    config: options by name, or a JSON file with them, which the other keywords override.
    num_env: environments per rank
    nsteps: steps per environment and update
    gamma: discount
    network: network: mlp, cnn, cnn_small, conv_only, or module:function of one's own
    value_network: 'shared': the value is a head on the policy's network, 'copy': on its own
    time_limit: a truncated episode's value: 'bootstrap' from its final observation, or 'terminal' as the original,
        which takes a time limit for death
    streams: noise and shuffling of each rank: its own, or the 'same' on all as the original
    stagger: shorten first episodes that a time limit ends, each by another share, so that environments do not stay in
        step
    statistics: normalisation statistics of all ranks or each rank's own
    lam: GAE's lambda
    ent_coef: weight of the entropy bonus
    logstd_init: initial log standard deviation of continuous actions
    action_scale: bring a bounded Box's actions from [-1, 1] to its bounds (default: where these differ from -1 and 1 by
        a factor over 3)
    normalize_observations: normalise observations by running statistics
    normalize_rewards: divide rewards by the running deviation of their discounted sum
    vf_lr: Adam's learning rate for the value
    vf_iters: passes over each batch to fit the value
    vf_minibatches: minibatches per pass
    cg_iters: iterations of conjugate gradient
    fisher_every: 1: the Fisher matrix is of every sample; 5: of every fifth
    max_kl: largest mean KL(old || new) of an update, nats: delta
    penalty_coef: penalise the KL with this fixed coefficient instead of bounding it by max_kl; none: bound it
    cg_damping: added to the Fisher matrix's diagonal before it is inverted
    backtracks: points that the line search tries
    shrink: each is so much nearer than the last
    accept_ratio: least improvement, as a fraction of what the gradient promises
    seed: seed of weights, environments, noise and shuffling
    num_timesteps: environment steps over all environments and ranks; rounded down to whole updates
    schedule_timesteps: let schedules fall as in a run of so many steps, of which this is the beginning (default:
        num_timesteps)
    preset: named set of hyperparameters; 'baselines' restores the original's choices
    env_type: family whose preset to use, instead of the one detected
    env_kwargs: keywords for the environment's constructor, as JSON: '{"frame_skip": 2}'; in Python also a dict
    reward_scale: factor on every reward that is trained on; logs keep raw rewards
    tensorboard: also write every figure of progress.csv as TensorBoard events beside the log
    track: also give every figure to 'wandb', or to a module:Class of one's own
    log_path: folder for the logs; an earlier run's files there are moved aside
    log_interval: updates between two rows of progress.csv
    view: what is shown: a 'live' picture, plain 'lines', or a 'table' of every figure (default: live on a terminal,
        else lines)
    print_interval: least seconds between two pictures, lines or tables (default: 0.5, 10, 2)
    save_path: file for the trained policy (default: model.safetensors beside the log)
    checkpoint_interval: updates between two checkpoints beside the log (default: a twentieth of the run)
    checkpoint_seconds: least seconds between two checkpoints
    keep_checkpoints: how many of the last checkpoints are kept
    resume: folder of the log of a run that is to go on from its last checkpoint; 'auto': that of log_path, where there
        is one, else a new run
    load_path: policy file to start from, or to play or evaluate
    target_return: stop when the mean return of the last 100 episodes reaches this, or that of an evaluation where
        eval_interval is given
    eval_interval: updates between two evaluations, in environments of their own and whole, unclipped games; one follows
        the last update too; 0: none
    eval_episodes: episodes of an evaluation, over all ranks; with --load_path and without --num_timesteps: evaluate the
        file's policy in so many, acting as eval_deterministic says
    eval_deterministic: evaluate the most probable actions instead of drawing them (default: but for Atari games, where
        such a policy may stall)
    save_video_interval: environment steps of rank 0 between two recorded videos; 0: none
    save_video_length: steps per recorded video
    threads: compute threads per rank (default: 1 for a small mlp, which more threads slow down, else the host's cores
        shared among its ranks)
    vec: where environments run: 'sync' in this process, 'async' in worker processes, 'native' in the id's own vector
        environment (default: native for Atari, else sync)
    dtype: arithmetic of convolutional networks; weights, losses and the optimizer stay float32
    stall_timeout: seconds without a step or an update after which a rank is named that comes no further, and the run
        ends; 0: none
    dry_run: set everything up, say what would be trained, and end without training or files
    verbose: let TensorFlow and MuJoCo print their start-up messages
    sticky: probability that the emulator repeats the last action for a frame (default: the id's, 0 for
        ...NoFrameskip-v4, 0.25 for ALE/...-v5)
    full_action_space: all 18 actions instead of those the game uses (default: the id's)
    frame_skip: frames per step; the last two are merged by their maximum
    frame_stack: steps that an observation shows
    frame_cap: frames after which a game is cut off: a time limit, not a death
    noop_max: a game begins with up to so many frames of doing nothing, drawn uniformly
    fire_reset: press FIRE as the first of them where the game has it
    life_loss: a lost life ends the training episode, though not the game
    clip_rewards: train on the sign of the rewards; logs keep raw scores
    env_threads: emulator threads per rank (default: as --threads)
    num_layers: hidden layers (mlp: 2)
    num_hidden: units per hidden layer (mlp: 64, cnn: 512, cnn_small: 128)
    sizes: units of each hidden layer, such as 400,300, in place of the two above (mlp: None)
    activation: activation of the hidden layers (mlp: tanh, cnn: relu, cnn_small: relu, conv_only: relu)
    layer_norm: normalise each hidden layer before its activation (mlp: False)
    convs: filters@kernel/stride of each convolution (cnn: 32@8/4,64@4/2,64@3/1, cnn_small: 8@8/4,16@4/2, conv_only:
        32@8/4,64@4/2,64@3/1)
    """
