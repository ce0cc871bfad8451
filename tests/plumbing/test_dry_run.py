"""`--dry_run`: what would be trained is set up and told, nothing is trained or written."""

import pytest

from baselines_lite import UserError, ppo2
from baselines_lite.common.policies.policy import Policy


@pytest.mark.parametrize(("alg", "env"), [("ppo2", "CartPole-v1"), ("trpo_mpi", "CartPole-v1"), ("acer", "CartPole-v1"),
                                          ("deepq", "CartPole-v1"), ("ddpg", "Pendulum-v1")])
def test_it_tells_what_is_resolved_and_writes_nothing(alg, env, main, tmp_path, uncompiled):
    done = main(f"--alg={alg}", f"--env={env}", "--dry_run", "--gamma=0.9", "--save_path=new/m", "--play")
    assert (done.returncode, done.stderr, list(tmp_path.iterdir())) == (0, "", [])
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["gamma", "0.9", "given"] in lines and any(line[2:3] == ["preset"] for line in lines)
    assert any(line[:1] == ["observations:"] for line in lines) and "parameters: " in done.stdout
    assert "used the whole budget" not in done.stdout


def test_the_numbers_of_parameters(capsys, uncompiled):
    policy = ppo2.learn("CartPole-v1", dry_run=True, num_hidden=8, num_layers=1)
    assert isinstance(policy, Policy)  # not trained
    said = capsys.readouterr().out
    assert "parameters: 107 (pi_head 18, pi_net 40, vf_head 9, vf_net 40)" in said
    lines = [line.split() for line in said.splitlines()]
    assert ["num_hidden", "8", "given"] in lines and ["activation", "tanh", "default"] in lines


def test_it_does_not_go_on_with_a_run(main):
    done = main("--env=CartPole-v1", "--dry_run", "--resume=auto", "--log_path=r")
    assert done.returncode == 2 and "dry_run says what a new run would be" in done.stderr
    with pytest.raises(UserError, match="gamma must be at most 1"):  # what is wrong is found as in a run
        ppo2.learn("CartPole-v1", dry_run=True, gamma=2)
