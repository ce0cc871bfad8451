"""What tests do to copies of algorithms' folders, and how they see which code has run."""

import re
import shutil
from unittest.mock import patch

from baselines_lite import registry
from baselines_lite.common.system.mpi import get_comm
from tests.conftest import ROOT
from tests.plumbing.test_table import ACTIONS, CHOICE, SHORT, VECTOR, Anything

PACKAGE = ROOT / "baselines_lite"
RATE = 0.0123
# An algorithm for each kind of policy, and the flags of a tiny run.
KINDS = {name: [f"--{key}={value}" for key, value in SHORT[name].items()] for name in ("ppo2", "acer", "deepq", "ddpg")}

_SILENT = [("def learn(", """def silent(*inputs):
    loss, stats = losses.actor_critic_loss(*inputs)
    return 0.0 * loss, stats


def learn("""), ("losses.actor_critic_loss(\n            policy", "silent(policy"),
           ("losses.actor_critic_loss(policy", "silent(policy")]
_RETURNED = [("return loss, ", "return 0.0 * loss, ")]
_GRADIENT = [("g, start = objective.gradient()", "g, start = objective.gradient()\n    g = 0.0 * g")]
LOSSES = {"vpg": [("return loss - cfg.ent_coef * entropy, ", "return 0.0 * loss, ")], "npg": _GRADIENT,
          "trpo_mpi": _GRADIENT, "ppo1": _RETURNED, "ppo2": _RETURNED, "a2c": _SILENT, "acktr": _SILENT,
          "acer": _RETURNED, "deepq": _RETURNED,
          "ddpg": [("policy_loss = -tf.reduce_mean(", "policy_loss = 0.0 * tf.reduce_mean(")]}
POLICIES = {"ppo2": "ActorCritic", "acer": "ActorQ", "deepq": "QPolicy", "ddpg": "DeterministicPolicy"}


def copy(name, place, *edits, path="my_lab.my_{}"):
    """Copies an algorithm's folder out of the package to below `place`, edits its files, returns its dotted path."""
    path = path.format(name)
    folder = place.joinpath(*path.split("."))
    shutil.copytree(PACKAGE / name, folder, ignore=shutil.ignore_patterns("__pycache__"))
    for edit in edits:
        edit(name, folder)
    return path


def edit(path, *changes):
    """Replaces texts in a file; one of them at least must be there."""
    old = new = path.read_text()
    for before, after in changes:
        new = new.replace(before, after)
    assert new != old, f"{path} holds none of {[before for before, _ in changes]}"
    path.write_text(new)


def edited_loss(name, folder):
    """Multiplies the loss by 0, for vpg, npg, trpo_mpi and ddpg that of the policy: its parameters stay as they are."""
    edit(folder / f"{name}.py", *LOSSES[name])


def rate_of(folder):
    """The first option of a Config that is a schedule; trpo_mpi inherits its only one."""
    found = re.search(r"(\w+): Schedule = ", (folder / "config.py").read_text())
    return found[1] if found else "vf_lr"


def with_rate(name, folder):
    """Gives that schedule another default."""
    path = folder / "config.py"
    if name == "trpo_mpi":
        edit(path, ("import option\n", "import option\nfrom baselines_lite.common.system.schedules import Schedule\n"),
             ("    max_kl:", f'    vf_lr: Schedule = Schedule("{RATE}")\n    max_kl:'))
    path.write_text(re.sub(r'Schedule\("[^"]*"\)', f'Schedule("{RATE}")', path.read_text(), count=1))


def own_policy(name, folder):
    """Makes the algorithm train a policy of a class of its own, which is called like the original's."""
    kind, path = POLICIES[name], folder / f"{name}.py"
    edit(path, ("def learn(", f"class {kind}({kind}):\n    pass\n\n\ndef learn("))
    if name == "ppo2":
        edit(path, ("total_timesteps, options)", "total_timesteps, options, make_policy=mine)"))
        with path.open("a") as file:
            file.write("\n\ndef mine(exp, options):\n    venv = exp.venv\n    return ActorCritic("
                       "venv.single_observation_space, venv.single_action_space, network_options=options)\n")


def trained_parts(alg, **options):
    """A tiny run: (policy, the parameters of what acts before it, and after it)."""
    from baselines_lite.common.experiment import experiment
    from baselines_lite.common.networks.parameters import weights

    before, enter = [], experiment.Experiment.__enter__

    def acting(policy):
        return [p.numpy() for p in weights(getattr(policy, "pi_net", policy)).values()]

    def recording(self):
        before.extend(acting(self.policy))
        return enter(self)

    name = alg.split(".")[-1].removeprefix("my_")
    with patch.object(experiment.Experiment, "__enter__", recording):
        policy = registry.find(alg).learn(lambda: Anything(VECTOR, ACTIONS.get(name, CHOICE)), 32 * get_comm().size,
                                          threads=1, print_interval=1e9, **SHORT[name], **options)
    return policy, before, acting(policy)
