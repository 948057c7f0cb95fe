"""What the command proposes at its end."""

from experiments.train import closing_lines


def test_the_last_lines_propose_commands_one_per_line():
    lines = closing_lines("runs/x", 2).splitlines()
    assert any(line.endswith("--checkpoint=runs/x --benchmark=held_out") for line in lines)
    assert not any("inspect" in line for line in lines)  # no rollouts were kept
    assert any("--config.algorithm.num_critics=4" in line for line in lines)
    assert max(map(len, lines)) < 110
    assert "num_critics" not in closing_lines("runs/x", 0)
