"""Trust region policy optimisation (Schulman et al. 2015, 1502.05477).

    for each update:
        collect nsteps steps of every environment with pi_old
        advs, returns = GAE(rewards, values)
        g = gradient of the surrogate mean(pi / pi_old A) at theta_old, averaged over ranks
        s = (F + cg_damping I)^-1 g                           by conjugate gradient on Fisher-vector products
        step = s sqrt(2 max_kl / s^T (F + cg_damping I) s)    or s / penalty_coef
        theta <- theta_old + shrink^k step                    the first k = 0, 1, ... that improves the surrogate enough
                                                              and keeps KL(old || new) <= max_kl
        fit V to the returns by minibatch Adam
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from baselines_lite.common.envs.vec_env import EnvLike
from baselines_lite.common.experiment.experiment import Experiment
from baselines_lite.common.optim import losses
from baselines_lite.common.optim.cg import Search, conjugate_gradient, line_search
from baselines_lite.common.optim.minibatch import Minibatches, shuffled, training_data
from baselines_lite.common.optim.mpi_adam import MpiAdam
from baselines_lite.common.optim.natural_gradient import PolicyObjective
from baselines_lite.common.policies.actor_critic import ActorCritic
from baselines_lite.common.sampling.returns import explained_variance, gae, standardize
from baselines_lite.common.system.seeding import stream

from .config import PRESETS, Config


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
            stats = trust_region_step(objective, objective.load(data), cfg)
            minibatches = shuffled(shuffle, cfg.nbatch, cfg.vf_iters, cfg.vf_minibatches)
            rates = {"vf_lr": cfg.vf_lr(exp.remaining)}
            stats |= value_steps(data, minibatches, rates["vf_lr"]) | rates
            exp.log(rollout, {"explained_variance": partial(explained_variance, rollout.values, returns), **stats})
        return policy


def trust_region_step(objective: PolicyObjective, theta: np.ndarray, cfg: Config) -> dict[str, float]:
    """Steps the policy from theta, or leaves it there where no step is acceptable (step_fraction 0); figures to log."""
    agree = objective.comm.broadcast  # on what decides whether, and how long, to look: ranks may round it differently
    g, start = objective.gradient()
    s, residual = conjugate_gradient(lambda v: objective.fisher_product(v) + cfg.cg_damping * v, g, cfg.cg_iters,
                                     agree=agree)
    curvature = agree(float(s @ (objective.fisher_product(s) + cfg.cg_damping * s)))
    found, there = Search(theta, 0.0), start
    if np.isfinite(curvature) and curvature > 0:
        penalty = cfg.penalty_coef or 0.0
        step = s / penalty if penalty else s * np.sqrt(2 * cfg.max_kl / curvature)
        # What the quadratic model promises: g . step, and less half the step's quadratic form where that is penalised.
        expected = agree(float(g @ step)) * (0.5 if penalty else 1.0)

        def evaluate(point: np.ndarray) -> tuple[float, float]:
            nonlocal there
            there = objective.point(point)
            return there.surrogate - start.surrogate - penalty * there.kl, there.kl

        found = line_search(evaluate, theta, step, expected, max_kl=np.inf if penalty else cfg.max_kl,
                            shrink=cfg.shrink, tries=cfg.backtracks, accept_ratio=cfg.accept_ratio)
        objective.assign(found.theta)
    end = there if found.fraction else start  # the search ends with the point that it takes
    return {"policy_loss": objective.policy_loss(start), "entropy": start.entropy, "kl": end.kl,
            "improvement": end.surrogate - start.surrogate, "grad_norm": float(np.linalg.norm(g)),
            "residual": residual, "step_fraction": found.fraction}
