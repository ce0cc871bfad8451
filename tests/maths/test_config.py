"""Strict configuration: types, ranges, near names, presets, schedules."""

import dataclasses
import re

import numpy as np
import pytest

from baselines_lite import registry
from baselines_lite.common.experiment.config import FAMILIES, RunOptions, algorithm_name, preset_values, resolve
from baselines_lite.common.system.errors import UserError
from baselines_lite.common.system.options import convert, option_table, override, rules_of
from baselines_lite.common.system.schedules import Schedule
from baselines_lite.ppo2.config import PRESETS, Config


@pytest.mark.parametrize(("kind", "value", "expected"), [
    (int, "1e6", 1_000_000), (int, "12", 12), (int, 3.0, 3), (int, "9007199254740993", 9007199254740993),
    (float, "3e-4", 3e-4), (float, 1, 1.0), (bool, "true", True), (bool, "no", False), (bool, True, True),
    (int | None, "none", None), (float | None, "0.5", 0.5), (str, "a=b", "a=b"),
])
def test_conversion_by_type(kind, value, expected):
    result = convert("x", kind, value)
    assert result == expected and type(result) is type(expected)


@pytest.mark.parametrize(("kind", "value"), [
    (int, "1.5"), (int, 1.5), (int, "many"), (int, True), (float, "fast"), (bool, "maybe"), (int, None), (int, "inf"),
    (float, "__import__('os').getcwd()"), (Schedule, "linear:x"), (Schedule, "cubic:1"), (Schedule, None),
])
def test_wrong_types_are_refused(kind, value):
    with pytest.raises(UserError):
        convert("x", kind, value)


@pytest.mark.parametrize(("values", "words"), [
    ({"gamma": 1.5}, "gamma must be at most 1"), ({"num_env": 0}, "num_env must be at least 1"),
    ({"seed": -1}, "seed must be at least 0"), ({"nminibatchs": 4}, "did you mean nminibatches"),
    ({"learning_rate": 1e-3}, "did you mean lr"), ({"clip_range": 0.1}, "did you mean cliprange"),
    ({"ent_coeff": 0.1}, "did you mean ent_coef"), ({"nminibatches": 3}, "does not divide the batch"),
    ({"num_timesteps": 100}, "less than one update"),
    ({"num_timesteps": 4096, "schedule_timesteps": 100}, "schedule_timesteps=100 is less than num_timesteps=4096"),
    ({"lr": -1e-3}, "lr must be at least 0"), ({"gamma": "nan"}, "must be finite"),
    ({"preset": "fast"}, "unknown preset"),
    ({"value_network": "copied"}, "did you mean copy"), ({"num_hiden": 64}, "did you mean num_hidden"),
    ({"num_hidden": 0}, "num_hidden must be at least 1"), ({"num_hidden": "x"}, "must be a whole number"),
])
def test_bad_values_are_named(values, words):
    with pytest.raises(UserError, match=words):
        resolve(Config, PRESETS, "other", values)


def test_an_algorithm_is_called_by_its_package():
    assert [algorithm_name(package) for package in ("baselines_lite.ppo2", "my_lab.my_ppo", "my_ppo")] == [
        "ppo2", "my_lab.my_ppo", "my_ppo"]
    with pytest.raises(UserError, match="named after its package"):
        algorithm_name(None)  # __package__ of a script


def test_precedence_default_preset_value():
    resolved = resolve(Config, PRESETS, "mujoco", {"nsteps": "64", "num_hidden": "32", "seed": 3})
    assert resolved.config.nsteps == 64 and resolved.config.nminibatches == 32 and resolved.config.gamma == 0.99
    assert resolved.network_options == {"num_hidden": 32} and resolved.run.seed == 3


@pytest.mark.parametrize("name", registry.ALGORITHMS)
def test_every_preset_of_every_family_is_valid(name):
    algorithm = registry.find(name)
    for preset in algorithm.PRESETS:
        for family in FAMILIES:
            resolve(algorithm.Config, algorithm.PRESETS, family, {"preset": preset, "num_timesteps": 10**8})


@pytest.mark.parametrize(("values", "num_env", "nsteps"), [
    ({}, 1, 8 * 256), ({"num_env": 1}, 1, 8 * 256), ({"nsteps": "64"}, 1, 64), ({"preset": "baselines"}, 1, 2048)])
def test_one_environment_gives_as_many_samples_as_the_presets(values, num_env, nsteps):
    config = resolve(Config, PRESETS, "mujoco", values, one_env=True).config
    assert (config.num_env, config.nsteps) == (num_env, nsteps)


def test_a_presets_network_options_are_for_its_own_network():
    ddpg = registry.find("ddpg")
    for values, expected in (({}, "400,300"), ({"sizes": "8"}, "8"), ({"sizes": [32, 16]}, "32,16"),
                             ({"sizes": (32,)}, "32"), ({"sizes": np.array([4, 2])}, "4,2"),
                             ({"sizes": "[8, 4]"}, "8, 4"), ({"preset": "baselines"}, None)):
        found = resolve(ddpg.Config, ddpg.PRESETS, "mujoco", values)
        assert found.network_options.get("sizes") == expected
    trpo = registry.find("trpo_mpi")
    values = {"preset": "baselines", "network": "lstm"}
    assert not resolve(trpo.Config, trpo.PRESETS, "mujoco", values).network_options


@pytest.mark.parametrize(("name", "family", "values", "small"), [
    ("ppo2", "mujoco", {}, True), ("ddpg", "mujoco", {}, False), ("ddpg", "mujoco", {"sizes": "64,64"}, True),
    ("ddpg", "mujoco", {"sizes": "400"}, True), ("ddpg", "mujoco", {"batch_size": 32}, True),
    ("deepq", "classic_control", {"sizes": "512,512", "batch_size": 32}, True), ("ppo2", "mujoco", {"num_hidden": 512},
    False), ("ppo2", "atari", {}, False), ("ppo2", "mujoco", {"network": "lstm"}, True)])
def test_several_threads_are_for_what_gains_from_them(name, family, values, small):
    algorithm = registry.find(name)
    assert resolve(algorithm.Config, algorithm.PRESETS, family, values).small == small


def test_a_preset_may_scale_rewards():
    deepq = registry.find("deepq")
    for values, expected in (({}, 0.01), ({"reward_scale": 1}, 1.0), ({"preset": "baselines"}, 1.0)):
        assert resolve(deepq.Config, deepq.PRESETS, "classic_control", values).run.reward_scale == expected


def test_baselines_preset_restores_the_original():
    config = override(Config(), preset_values(PRESETS, "baselines", "mujoco"))
    assert (config.cliprange_vf, config.time_limit, config.adv_moments) == ("0.2", "terminal", "rank")
    assert (config.nsteps, config.nminibatches, config.noptepochs, config.value_network) == (2048, 32, 10, "copy")
    for family in FAMILIES:  # its ppo1 scaled clip_param by the rate's multiplier; both averaged statistics by MPI
        ppo1, trpo = (override(each.Config(), {k: v for k, v in preset_values(each.PRESETS, "baselines", family).items()
                                               if k in each.Config.__dataclass_fields__})
                      for each in map(registry.find, ("ppo1", "trpo_mpi")))
        assert [ppo1.cliprange(x) / ppo1.cliprange(1) == ppo1.lr(x) / ppo1.lr(1) == x for x in (1, 0.5)] == [True] * 2
        assert (ppo1.statistics, ppo1.streams, trpo.statistics) == ("global", "rank", "global")


def test_help_lists_every_field():
    for config_type in (RunOptions, *(registry.find(name).Config for name in registry.ALGORITHMS)):
        text = option_table(config_type)
        for field in dataclasses.fields(config_type):
            meaning = rules_of(config_type, field.name)["help"]
            assert f"--{field.name} " in text and meaning and meaning in text


def test_an_option_with_another_default_keeps_its_meaning_and_range():
    @dataclasses.dataclass(frozen=True)
    class Mine(Config):
        nminibatches: int = 2

    assert re.search("--nminibatches +int +2 +minibatches per epoch", option_table(Mine))
    assert override(Mine(), {}).nminibatches == 2
    with pytest.raises(UserError, match="nminibatches must be at least 1"):
        override(Mine(), {"nminibatches": 0})


@pytest.mark.parametrize(("text", "at"), [
    ("0.2", {1.0: 0.2, 0.1: 0.2}), ("linear:1e-3", {1.0: 1e-3, 0.5: 5e-4, 0.0: 0.0}),
    ("middle_drop:2", {0.8: 1.6, 0.5: 0.15}), ("double_linear_con:1", {1.0: 1.0, 0.75: 0.5, 0.3: 0.125}),
    ("double_middle_drop:1", {0.8: 0.8, 0.5: 0.075, 0.2: 0.125}),
])
def test_schedules(text, at):
    for remaining, value in at.items():
        assert Schedule(text)(remaining) == pytest.approx(value)
