"""Natural policy gradient (Kakade 2001; Rajeswaran et al. 2017, 1703.02660).

    for each update:
        collect nsteps steps of every environment with pi
        advs, returns = GAE(rewards, values)
        g = mean(grad log pi(a|s) A), averaged over ranks
        d = (F + damping I)^-1 g          F = mean(grad log pi grad log pi^T), explicitly or by conjugate gradient
        theta <- theta + d sqrt(2 step_kl / d^T F d)              so that KL(old || new) is about step_kl
        fit V to the returns by minibatch Adam
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from baselines_lite.common.envs.vec_env import EnvLike
from baselines_lite.common.experiment.experiment import Experiment
from baselines_lite.common.optim import losses
from baselines_lite.common.optim.cg import conjugate_gradient
from baselines_lite.common.optim.minibatch import Minibatches, shuffled, training_data
from baselines_lite.common.optim.mpi_adam import MpiAdam
from baselines_lite.common.optim.natural_gradient import PolicyObjective
from baselines_lite.common.policies.actor_critic import ActorCritic
from baselines_lite.common.sampling.returns import explained_variance, gae, standardize
from baselines_lite.common.system.seeding import stream

from .config import PRESETS, Config

SINGULAR = 1e-7  # of the largest pivot; the matrix is computed in float32


def learn(env: EnvLike, total_timesteps: float | None = None, **options: Any) -> ActorCritic:
    """Trains a policy in `env` for `total_timesteps` environment steps over all environments and ranks.

    env: a Gymnasium id, `module:Id`, an Env, a factory of Envs, or a VectorEnv. total_timesteps: by default a million.
    Options by keyword: those of `experiment.config.RunOptions` (seed, log_path, save_path, ...), of `Config`, and of
    the network. Raises UserError for options that cannot be meant, and spaces and networks that are not supported.
    """
    with Experiment(__package__, Config, PRESETS, env, total_timesteps, options) as exp:
        cfg, run, comm, policy = exp.config, exp.run, exp.comm, exp.policy
        objective = PolicyObjective(policy, comm, ent_coef=cfg.ent_coef, fisher_every=cfg.fisher_every,
                                    num_env=cfg.num_env)
        value_steps = Minibatches(policy, MpiAdam(policy.vf_variables, comm),
                                  lambda batch, _: losses.value_fit(policy, batch), ("value_loss",))
        shuffle = stream(run.seed, "shuffle", exp.noise_rank)
        collector = exp.collector()
        exp.keep(value_steps=value_steps, shuffle=shuffle)
        while not exp.finished:
            rollout = collector.collect()
            advs, returns = gae(rollout, cfg.gamma, cfg.lam)
            data = training_data(policy, rollout, logp=policy.logp(rollout.heads, rollout.actions),
                                 advs=standardize(advs, comm), returns=returns)
            rates = {"step_kl": cfg.step_kl(exp.remaining), "vf_lr": cfg.vf_lr(exp.remaining)}
            stats = natural_step(objective, objective.load(data), cfg, rates["step_kl"])
            minibatches = shuffled(shuffle, cfg.nbatch, cfg.vf_iters, cfg.vf_minibatches)
            stats |= value_steps(data, minibatches, rates["vf_lr"]) | rates
            exp.log(rollout, {"explained_variance": partial(explained_variance, rollout.values, returns), **stats})
        return policy


def natural_step(objective: PolicyObjective, theta: np.ndarray, cfg: Config, step_kl: float) -> dict[str, float]:
    """Steps the policy from theta along the natural gradient; figures to log. A step of no length is skipped."""
    agree = objective.comm.broadcast  # on what decides whether to step: ranks may round it differently
    g, start = objective.gradient()
    if cfg.solver == "explicit":
        fisher = objective.fisher_matrix()
        d, residual = solve(fisher + cfg.damping * np.eye(len(g), dtype=g.dtype), g)
        Fd = fisher @ d
    else:
        d, residual = conjugate_gradient(lambda v: objective.fisher_product(v) + cfg.damping * v, g, cfg.cg_iters,
                                         agree=agree)
        Fd = objective.fisher_product(d)
    curvature = agree(float(d @ Fd))
    taken = np.isfinite(curvature) and curvature > 0
    if taken:
        theta = theta + (np.sqrt(2 * step_kl / curvature) * d).astype(theta.dtype)
        objective.assign(theta)
    return {"policy_loss": objective.policy_loss(start), "entropy": start.entropy, "kl": objective.point(theta).kl,
            "grad_norm": float(np.linalg.norm(g)), "residual": residual, "step_taken": float(taken)}


def solve(matrix: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, float]:
    """(x with matrix x = g, the squared residual); zeros where the matrix is singular, so that no step is taken.

    Singular is what has a Cholesky pivot below SINGULAR times the largest: rounding, not curvature.
    """
    exact = matrix.astype(np.float64)
    try:
        pivots = np.square(np.diag(np.linalg.cholesky(exact)))
    except np.linalg.LinAlgError:
        pivots = np.zeros(1)
    if pivots.min() <= SINGULAR * pivots.max():
        return np.zeros_like(g), float(g @ g)
    x = np.linalg.solve(exact, g)
    return x.astype(g.dtype), float(np.square(exact @ x - g).sum())
