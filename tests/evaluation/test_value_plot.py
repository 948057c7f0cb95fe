"""The plot of value errors: drawn with and without critics."""

import numpy as np
import pytest

from asyppo_jax.config import AlgorithmConfig
from asyppo_jax.evaluation.value_errors import value_errors
from asyppo_jax.evaluation.value_plot import plot_value_errors, value_figure
from tests.evaluation.test_value_errors import TRUTH, B, C, critics, make_states


@pytest.mark.parametrize("values", [critics(0.1, -0.2), np.zeros((0, B, C))], ids=["K=2", "K=0"])
def test_the_plot_has_a_curve_for_each_estimate(values, tmp_path):
    positions = value_errors(make_states(TRUTH), values, AlgorithmConfig())
    errors = value_figure(positions, "a run").axes[0]
    labels = {line.get_label() for line in errors.get_lines()}
    assert {"group's other answers", "mean reward"} <= labels
    assert ("critics' mean" in labels) == bool(len(values))
    plot_value_errors(positions, tmp_path / "plot.png", title="a run")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
