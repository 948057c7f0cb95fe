"""Runs with DAPO's dynamic sampling: going on equal to the bit, and the metrics of options."""

import re
from pathlib import Path

import orbax.checkpoint as ocp
import pytest

from asyppo_jax.config import from_config_dict
from asyppo_jax.runs.metrics import read_metrics
from asyppo_jax.train import train
from configs import tiny_test
from tests.graders import odd_letters
from tests.tiny import assert_trees_equal, save_model_directory


def _config(model: str, num_steps: int):
    """Every option that has a metric, and resampling that sometimes reaches its limit."""
    values = tiny_test.get_config()
    values.actor.path = model
    values.num_steps = num_steps
    values.sampling.max_rounds = 4
    values.checkpoint.every = 1
    values.evaluation.every = 0
    values.log.tensorboard = False
    values.algorithm.zero_spread_groups = "resample"
    values.algorithm.dual_clip = 3.0
    values.algorithm.kl_coef = 0.1
    values.algorithm.positive_nll_coef = 0.1
    return from_config_dict(values)


@pytest.fixture(scope="module")
def workdirs(tmp_path_factory):
    """Four steps at once, and the same in two runs of two steps."""
    model = save_model_directory(tmp_path_factory.mktemp("model"))
    whole, resumed = (tmp_path_factory.mktemp(name) for name in ("whole", "resumed"))
    for workdir, num_steps in ((whole, 4), (resumed, 2), (resumed, 4)):
        train(_config(model, num_steps), workdir, reward=odd_letters)
    return whole, resumed


def _rows(workdir: Path) -> list[dict]:
    timed = ("time/", "rollout/tokens_per_s", "evaluate/")
    rows = read_metrics(workdir / "metrics.jsonl")
    return [{k: v for k, v in row.items() if not k.startswith(timed)} for row in rows]


def _saved(workdir: Path):
    with ocp.CheckpointManager(workdir / "checkpoints") as manager:
        args = ocp.args.Composite(state=ocp.args.StandardRestore(), data=ocp.args.JsonRestore())
        restored = manager.restore(4, args=args)
    return restored["state"], restored["data"]


def test_a_run_that_resumes_equals_one_that_was_not_interrupted(workdirs):
    """The state of the data counts the prompts of all rounds."""
    whole, resumed = workdirs
    assert_trees_equal(_saved(whole), _saved(resumed))
    assert _rows(whole) == _rows(resumed)
    rounds = [row.get("rollout/rounds") for row in _rows(whole)]
    assert rounds[:2] == [None, None]  # the evaluation, and the warm-up
    assert all(x is not None and 1 < x <= 4 for x in rounds[2:])


def test_groups_without_spread_are_left_only_where_the_limit_was_reached(workdirs):
    for row in _rows(workdirs[0])[2:]:
        with_spread = 1 - row["rollout/groups_sampled_without_spread"]
        with_spread *= row["rollout/groups_sampled"]
        left = row["rollout/groups_without_spread"]
        assert left == pytest.approx(max(0, 4 - with_spread) / 4, abs=1e-6)
        assert left == 0 or row["rollout/rounds"] == 4
        assert row["rollout/groups_sampled"] == 4 * row["rollout/rounds"]
        assert row["rollout/reward_mean_sampled"] < row["rollout/reward_mean"]


def test_the_page_of_metrics_lists_those_of_options(workdirs):
    page = Path(__file__).parents[1] / "docs" / "metrics.md"
    always, _, options = page.read_text().partition("## Of options")
    always, options = (
        set(re.findall(r"^\| `(\w+/\w+)` \| \S", text, re.M)) for text in (always, options)
    )
    written = {name for row in _rows(workdirs[0]) for name in row} - {"step"}
    written = {re.sub(r"(explained_variance)_\d+$", r"\1_k", name) for name in written}
    assert written - always == options
