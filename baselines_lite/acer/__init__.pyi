"""What editors and type checkers see of this package; when it runs, this file is not read.

`baselines-lite stubs PACKAGE` writes it from the options in config.py. When they change, do that again or delete it.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from baselines_lite.common.envs.vec_env import EnvLike
from baselines_lite.common.experiment.report import AfterUpdate
from baselines_lite.common.policies.actor_q import ActorQ

from .config import PRESETS, Config

__all__ = ["PRESETS", "Config", "learn"]

def learn(
    env: EnvLike,
    total_timesteps: float | None = None,
    *,
    callback: Callable[[AfterUpdate], Any] | None = None,
    config: Config | Mapping[str, Any] | str | Path | None = None,
    num_env: int = 16,
    nsteps: int = 20,
    gamma: float = 0.99,
    network: str = "mlp",
    value_network: Literal["shared", "copy"] = "shared",
    time_limit: Literal["bootstrap", "terminal"] = "bootstrap",
    streams: Literal["rank", "same"] = "rank",
    stagger: bool = True,
    lr: str | float | Callable[[float], float] = "linear:7e-4",
    rms_decay: float = 0.99,
    rms_epsilon: float = 1e-05,
    ent_coef: float = 0.01,
    q_coef: float = 0.5,
    max_grad_norm: float | None = 10.0,
    normalize_observations: bool = False,
    normalize_rewards: bool = False,
    replay_ratio: float = 4.0,
    buffer_size: int = 50000,
    replay_start: int = 10000,
    c: float = 10.0,
    trust_region: bool = True,
    delta: float = 1.0,
    alpha: float = 0.99,
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
    nlstm: int = ...,
) -> ActorQ:
    """Trains a policy in `env` for `total_timesteps` environment steps over all environments and ranks.

    env: a Gymnasium id, `module:Id`, an Env, a factory of Envs, or a VectorEnv. total_timesteps: by default a million.
    Options by keyword: those of `experiment.config.RunOptions` (seed, log_path, save_path, ...), of `Config`, and of
    the network. Raises UserError for options that cannot be meant, spaces that are not supported, and a replay buffer
    that memory cannot hold.

    Defaults are those before the preset's for a family of environments. A network of one's own has its options in
    `config`.

    callback: called after each update; where it returns True, the run ends.
    config: options by name, or a JSON file with them, which the other keywords override.
    num_env: environments per rank
    nsteps: steps per environment and update; also the length of a replayed segment
    gamma: discount
    network: network: mlp, cnn, cnn_small, conv_only, lstm, lnlstm, cnn_lstm, cnn_lnlstm, or module:function of one's
        own
    value_network: 'shared': action values are a head on the policy's network, 'copy': on their own
    time_limit: a truncated episode's value: 'bootstrap' from its final observation, or 'terminal' as the original,
        which takes a time limit for death
    streams: noise and shuffling of each rank: its own, or the 'same' on all as the original
    stagger: shorten first episodes that a time limit ends, each by another share, so that environments do not stay in
        step
    lr: RMSProp's learning rate
    rms_decay: decay of RMSProp's mean square
    rms_epsilon: RMSProp's epsilon, inside the root
    ent_coef: weight of the entropy bonus
    q_coef: weight of the action values' loss
    max_grad_norm: the averaged gradient is scaled down to this norm; none: off
    normalize_observations: normalise observations by running statistics, as these were when they came
    normalize_rewards: divide rewards by the running deviation of their discounted sum, as it was when they came
    replay_ratio: mean number of replayed batches per new one
    buffer_size: latest steps that are kept of each environment, in whole segments
    replay_start: steps of each environment before the first replay
    c: importance weights of the policy's gradient are truncated at c
    trust_region: keep updates close to the average policy
    delta: how fast an update may move away from the average policy: bound on k . z
    alpha: decay of the average policy, per update
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
    num_hidden: units per hidden layer (mlp: 64, cnn: 512, cnn_small: 128, cnn_lstm: 512, cnn_lnlstm: 512)
    sizes: units of each hidden layer, such as 400,300, in place of the two above (mlp: None)
    activation: activation of the hidden layers (mlp: tanh, cnn: relu, cnn_small: relu, conv_only: relu, cnn_lstm: relu,
        cnn_lnlstm: relu)
    layer_norm: normalise each hidden layer before its activation (mlp: False, lstm: False, cnn_lstm: False)
    convs: filters@kernel/stride of each convolution (cnn: 32@8/4,64@4/2,64@3/1, cnn_small: 8@8/4,16@4/2, conv_only:
        32@8/4,64@4/2,64@3/1, cnn_lstm: 32@8/4,64@4/2,64@3/1, cnn_lnlstm: 32@8/4,64@4/2,64@3/1)
    nlstm: units of the LSTM (lstm: 128, lnlstm: 128, cnn_lstm: 128, cnn_lnlstm: 128)
    """
