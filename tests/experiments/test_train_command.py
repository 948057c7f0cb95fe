"""What the command says at its end, and after Ctrl-C."""

import os
import signal
import sys

import jax
import pytest

from experiments.command_line import stop
from experiments.train import _stop, closing_lines


def test_the_last_lines_propose_commands_one_per_line():
    lines = closing_lines("runs/x", 2).splitlines()
    assert any(line.endswith("--checkpoint=runs/x --benchmark=held_out") for line in lines)
    assert not any("--rollouts=" in line for line in lines)  # no rollouts were kept
    assert any("--config.log.rollouts_every=10" in line for line in lines)
    assert any("--config.algorithm.num_critics=4" in line for line in lines)
    assert max(map(len, lines)) < 110
    assert "num_critics" not in closing_lines("runs/x", 0)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_after_a_signal_it_says_what_is_kept_and_ends_at_once(
    tmp_path, monkeypatch, capsys, number, status
):
    monkeypatch.setattr(os, "_exit", lambda status: sys.exit(f"at once: {status}"))
    with pytest.raises(SystemExit, match=f"at once: {status}"):
        _stop(str(tmp_path), number)
    assert capsys.readouterr().err.startswith("\nstopped")
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(SystemExit) as ended:
        _stop(str(tmp_path), number)
    assert ended.value.code == status
    assert capsys.readouterr().err.startswith("\nstopped")


def test_another_command_ends_at_once_with_the_status_of_an_interrupted_program(
    monkeypatch, capsys
):
    monkeypatch.setattr(os, "_exit", lambda status: sys.exit(f"at once: {status}"))
    with pytest.raises(SystemExit, match="at once: 130"):
        stop("stopped; run the same command again")
    assert capsys.readouterr().err.startswith("stopped; run the same command again")
