"""When a run has nothing left to do."""

import dataclasses
import json

import numpy as np
import pytest

from asyppo_jax.runs.finished import describe_finished, is_finished, passes_bar
from tests.tiny import make_config, make_networks, make_state

CONFIG = make_config(2)


def at(step):
    return make_state(CONFIG, make_networks(2)).replace(step=np.int32(step))


def with_bar(bar, num_steps=5):
    value = dataclasses.replace(CONFIG.value, stop_at_explained_variance=bar)
    return dataclasses.replace(CONFIG, value=value, num_steps=num_steps)


@pytest.mark.parametrize(
    ("bar", "explained", "passes"),
    [(None, 1.0, False), (0.3, 0.3, True), (0.3, 0.2, False), (0.3, None, False)],
)
def test_a_step_passes_the_bar_if_its_critics_explain_as_much(bar, explained, passes):
    metrics = {} if explained is None else {"critic/explained_variance": explained}
    assert passes_bar(with_bar(bar), metrics) == passes


def test_a_run_is_finished_after_its_last_step_or_at_its_bar(tmp_path):
    rows = [{"step": 1, "critic/explained_variance": 0.1}]
    rows += [{"step": 2, "critic/explained_variance": 0.4}]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    workdir = str(tmp_path)
    assert is_finished(at(5), with_bar(None), workdir)
    assert not is_finished(at(2), with_bar(None), workdir)
    assert is_finished(at(2), with_bar(0.3), workdir)
    assert not is_finished(at(1), with_bar(0.3), workdir)
    assert not is_finished(at(0), with_bar(0.3), workdir)
    assert "reached 0.3 at step 2" in describe_finished(at(2), with_bar(0.3))
    assert "num_steps is 5" in describe_finished(at(5), with_bar(0.3))
