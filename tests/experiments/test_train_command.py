"""What the command prints at its end, and after Ctrl-C."""

from experiments.train import _stopped, closing_lines

SUMMARY = {
    "accuracy_before": 0.25,
    "accuracy_after": 0.5,
    "steps": 3,
    "seconds": 12.3,
    "seed": 0,
    "measure": "accuracy",
    "plots": [],
}


def test_the_last_lines_propose_commands_one_per_line():
    lines = closing_lines(SUMMARY, "runs/x", 2).splitlines()
    assert lines[1] == "held-out accuracy 25.0% -> 50.0% in 3 steps, 12 s (seed 0)"
    assert any(line.endswith("--checkpoint=runs/x --benchmark=held_out") for line in lines)
    assert not any("inspect" in line for line in lines)  # no rollouts were kept
    assert max(map(len, lines)) < 110


def test_an_accuracy_that_is_not_known_is_no_error():
    summary = SUMMARY | {"accuracy_after": None, "measure": "mean reward"}
    assert "held-out mean reward 25.0% -> no reward in 3 steps" in closing_lines(summary, "x", 0)


def test_after_an_interruption_the_last_checkpoint_is_named(tmp_path):
    assert _stopped(str(tmp_path)).startswith("stopped before the first checkpoint; the same")
    for step in (2, 4):
        (tmp_path / "checkpoints" / str(step)).mkdir(parents=True)
    assert "the last checkpoint is of step 4, and the same command" in _stopped(str(tmp_path))
