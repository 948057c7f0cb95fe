"""The loop's ways to stop: each one sentence, and nothing overwritten."""

import dataclasses
import re
import shutil
from pathlib import Path

import orbax.checkpoint as ocp
import pytest

import asyppo_jax.runs.collect
from asyppo_jax.config import CheckpointConfig, ConfigError
from asyppo_jax.models.config import ModelError
from asyppo_jax.runs.checkpoint import (
    CheckpointError,
    check_same_run,
    make_manager,
    read_settings,
    saved_steps,
)
from asyppo_jax.runs.metrics import NonFiniteError, read_metrics
from asyppo_jax.runs.rollout_files import read_rollout_file
from asyppo_jax.tasks.records import DataError
from asyppo_jax.tasks.rewards import exact
from asyppo_jax.train import train
from asyppo_jax.types import TrainState
from tests.short_run import press_while, short_run
from tests.tiny import QWEN3, VOCABULARY_OF_TEXT, assert_trees_equal, save_model_directory


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model_directory(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def finished(model, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finished")
    train(short_run(model), str(workdir))
    return workdir


def _untimed(rows):
    timed = ("time/", "rollout/tokens_per_s")
    return [{k: v for k, v in row.items() if not k.startswith(timed)} for row in rows]


def _files(workdir):
    return {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}


def test_the_page_of_metrics_lists_those_that_a_run_writes(finished):
    page = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text()
    page, _, _ = page.partition("## Of options")  # see test_dynamic_sampling.py
    listed = re.findall(r"^\| `(\w+/\w+)` \| \S", page, re.M)
    assert len(listed) == len(set(listed))
    written = {name for row in read_metrics(finished / "metrics.jsonl") for name in row} - {"step"}
    written = {re.sub(r"(explained_variance)_\d+$", r"\1_k", name) for name in written}
    # This run has one reward function; the test of several checks the metrics of each.
    assert set(listed) - {"rollout/reward_NAME"} == written


def test_a_directory_of_another_run_is_refused_and_left_as_it_is(finished, model):
    before = _files(finished)
    with pytest.raises(CheckpointError, match=r"config\.algorithm\.gamma = 1\.0.*has 0\.5"):
        train(short_run(model, algorithm__gamma=0.5), str(finished))
    assert _files(finished) == before


def _without_times(workdir):
    rows = read_metrics(workdir / "metrics.jsonl")
    untimed = [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]
    return [{k: v for k, v in row.items() if k != "rollout/tokens_per_s"} for row in untimed]


def _saved(workdir, step):
    with ocp.CheckpointManager(workdir / "checkpoints") as manager:
        args = ocp.args.Composite(state=ocp.args.StandardRestore(), data=ocp.args.JsonRestore())
        restored = manager.restore(step, args=args)
    return restored["state"], restored["data"]


def test_more_steps_go_on_and_ctrl_c_keeps_the_step_and_every_bit(
    finished, model, tmp_path, monkeypatch, capsys
):
    straight, stopped = (shutil.copytree(finished, tmp_path / name) for name in ("a", "b"))
    config = short_run(model, num_steps=5, checkpoint__every=0)
    assert train(config, straight)["steps"] == 5
    assert [row["step"] for row in _without_times(straight)] == [0, 1, 2, 3, 4, 5]
    with monkeypatch.context() as patched:
        press_while(patched, "_score", when=2, where=asyppo_jax.runs.collect)  # in step 4
        with pytest.raises(KeyboardInterrupt, match=r"the last checkpoint is of step 4, and the"):
            train(config, stopped)
    printed = capsys.readouterr().out
    assert printed.count("finishing step 4, then saving; Ctrl-C again stops at once") == 1
    # Of every second step and the last one, then of the run that is stopped.
    assert re.findall(r"-- step (\d+), sample 1 of", printed) == ["4", "5", "4"]
    assert saved_steps(str(stopped)) == [2, 4]
    train(config, stopped)
    assert "resuming after step 4" in capsys.readouterr().out
    assert _without_times(stopped) == _without_times(straight)
    assert_trees_equal(_saved(straight, 5), _saved(stopped, 5))


def test_a_finished_run_says_that_it_is_finished(finished, model, capsys):
    before = _files(finished / "checkpoints")
    assert train(short_run(model), finished)["steps"] == 2
    printed = capsys.readouterr().out
    assert "the run is finished: config.num_steps is 2, and the last checkpoint is of step 2; " in (
        printed
    )
    assert "resuming" not in printed and "held-out accuracy " in printed
    assert _files(finished / "checkpoints") == before


@pytest.mark.slow  # the run without KL is quick
def test_a_run_with_kl_that_resumes_equals_one_that_was_not_interrupted(model, tmp_path):
    """The reference is in no checkpoint: it is loaded again from config.actor.path."""
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    kl = {"algorithm__kl_coef": 0.5, "algorithm__num_critics": 0, "algorithm__advantages": "grpo"}
    for workdir, num_steps in ((whole, 3), (resumed, 2), (resumed, 3)):
        config = short_run(model, num_steps=num_steps, evaluation__every=1, **kl)
        train(config, workdir, reward=_share_of_digits)
    states = []
    for workdir in (whole, resumed):
        with make_manager(str(workdir), CheckpointConfig()) as manager:
            restored = manager.restore(3, args=ocp.args.Composite(state=ocp.args.StandardRestore()))
        states.append(restored["state"])
    assert set(states[0]) == set(TrainState.__dataclass_fields__)  # and so no reference
    assert_trees_equal(*states)
    rows, others = (_untimed(read_metrics(x / "metrics.jsonl")) for x in (whole, resumed))
    assert rows == others
    assert 0 <= rows[1]["actor/kl_to_reference"] < rows[3]["actor/kl_to_reference"]


def test_a_run_with_kl_whose_starting_weights_are_gone_is_refused_in_one_sentence(tmp_path):
    base, workdir = save_model_directory(tmp_path / "base"), tmp_path / "run"
    kl = {"algorithm__kl_coef": 0.5, "algorithm__num_critics": 0, "algorithm__advantages": "grpo"}
    train(short_run(base, num_steps=1, **kl), workdir)
    (tmp_path / "base" / "model.safetensors").unlink()
    message = r"kl_coef is 0\.5, so each start of the run loads the reference .*put the weights"
    with pytest.raises(ModelError, match=message):
        train(short_run(base, **kl), workdir)
    shutil.rmtree(base)
    with pytest.raises(ModelError, match=r"model directory .*base' does not exist"):
        train(short_run(base, **kl), workdir)


def test_saving_held_out_answers_changes_no_number_of_the_run(finished, model, tmp_path):
    train(short_run(model, log__heldout_prompts=2), str(tmp_path))
    rows, expected = (read_metrics(path / "metrics.jsonl") for path in (tmp_path, finished))
    assert _untimed(rows) == _untimed(expected)
    for step in (0, 2):
        answers = read_rollout_file(tmp_path / "rollouts" / f"heldout_{step:08}.jsonl")
        assert [(a.step, a.held_out, len(a.values)) for a in answers] == [(step, True, 2)] * 2


@pytest.mark.slow
def test_a_rollout_that_is_scored_in_parts_trains_the_same(finished, model, tmp_path):
    """Same tokens, same rewards; the sums of the first update are added up in another order."""
    train(short_run(model, num_steps=1, sampling__chunks=2), str(tmp_path))
    row, whole = (read_metrics(path / "metrics.jsonl")[1] for path in (tmp_path, finished))
    for name in [x for x in whole if x.startswith(("rollout/", "critic/", "actor/"))]:
        if name != "rollout/tokens_per_s":
            assert row[name] == pytest.approx(whole[name], rel=1e-3, abs=1e-5), name


def test_a_torn_checkpoint_is_named_and_left_as_it_is(finished, model, tmp_path):
    workdir = shutil.copytree(finished, tmp_path / "copy")
    state = workdir / "checkpoints" / "2" / "state"
    torn = [p for p in state.rglob("*") if p.is_file() and p.parent.name == "d"]
    assert torn
    for file in torn:
        file.write_bytes(file.read_bytes()[:20])
    before = _files(workdir / "checkpoints")
    with pytest.raises(
        CheckpointError, match=r"checkpoints/2 is damaged: its file state/d.*remove that folder"
    ):
        train(short_run(model, num_steps=3), str(workdir))
    assert _files(workdir / "checkpoints") == before


def test_a_nan_stops_the_run_before_anything_of_the_step_is_saved(model, tmp_path):
    with pytest.raises(NonFiniteError, match=r"step 1: actor/.*earlier checkpoints are intact"):
        largest = {"actor_optimizer__learning_rate": 1e3, "actor_optimizer__weight_decay": 1e3}
        train(short_run(model, **largest), str(tmp_path))
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [0]
    assert not list((tmp_path / "checkpoints").iterdir())


def test_another_vocabulary_or_tokenizer_is_refused_with_the_difference(model, tmp_path):
    larger = dataclasses.replace(QWEN3, vocab_size=len(VOCABULARY_OF_TEXT) + 3)
    other = save_model_directory(tmp_path / "other", larger)
    with pytest.raises(ModelError, match=r"has a vocabulary of .* take both from one model"):
        train(short_run(model, critic__path=other), str(tmp_path / "run"))
    same_size = save_model_directory(tmp_path / "swapped")
    file = tmp_path / "swapped" / "tokenizer.json"
    file.write_text(file.read_text().replace('"q"', '"Q"'))
    with pytest.raises(ConfigError, match="token 'Q' is absent for the actor"):
        train(short_run(model, critic__path=same_size), str(tmp_path / "run"))


def test_data_that_cannot_be_read_is_named_with_its_line(model, tmp_path):
    file = tmp_path / "data.jsonl"
    changes = {"train_data__source": "jsonl", "train_data__path": str(file)}
    file.write_text('{"problem": "1+1", "answer": "2"}\n{"problem": \n')
    with pytest.raises(DataError, match=r"data\.jsonl, line 2: not JSON"):
        train(short_run(model, **changes), str(tmp_path / "run"))
    file.write_text("")
    with pytest.raises(DataError, match=r"data\.jsonl"):
        train(short_run(model, **changes), str(tmp_path / "run"))


def test_a_model_directory_without_config_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"has no config\.json"):
        train(short_run(str(tmp_path / "empty")), str(tmp_path / "run"))


def _no_score(problem, completion, answer):
    raise ValueError("could not convert")


def _tenth(problem, completion, answer):  # whose mean over many is not exactly 0.1 in float32
    return 0.1


def _share_of_digits(problem, completion, answer):
    return sum(map(str.isdigit, completion)) / max(len(completion), 1)


def _half_of_length(problem, completion, answer):
    return 0.5


def test_a_reward_that_scores_no_held_out_answer_ends_the_run_before_the_first_step(
    model, tmp_path
):
    message = (
        r"none of the 16 answers to the held-out problems got a reward from tests.test_train:"
        r"_no_score: ValueError: could .*test_train.py:\d+\); correct the function"
    )
    with pytest.raises(ConfigError, match=message):
        train(short_run(model), tmp_path, reward=_no_score)
    assert not (tmp_path / "checkpoints").exists() or not list((tmp_path / "checkpoints").iterdir())
    assert (tmp_path / "config.json").is_file()
    check_same_run(str(tmp_path), dataclasses.asdict(short_run(model)))  # takes a corrected reward


def test_rewards_that_are_all_equal_are_said_once_with_the_page_that_helps(model, tmp_path, capsys):
    train(short_run(model), tmp_path, reward=_tenth)
    lines = [line for line in capsys.readouterr().out.splitlines() if "can be learnt" in line]
    assert len(lines) == 1 and lines[0].startswith("step 1: every reward is 0.1, so nothing can be")
    assert "docs/troubleshooting.md" in lines[0]


def test_functions_are_recorded_in_the_config_and_several_rewards_have_their_metrics(
    model, tmp_path
):
    def loss(log_probs, entropy, rows, config):
        return -rows.advantages * log_probs

    train(short_run(model), tmp_path, loss=loss, reward=[exact, _half_of_length])
    settings = read_settings(str(tmp_path))
    assert settings.algorithm.loss.endswith("<locals>.loss")
    assert settings.reward.function.startswith("asyppo_jax.tasks.rewards.graders:exact,")
    row = read_metrics(tmp_path / "metrics.jsonl")[1]
    assert row["rollout/reward__half_of_length"] == 0.5
    mean = (row["rollout/reward_exact"] + 0.5) / 2
    assert row["rollout/reward_mean"] == pytest.approx(mean, abs=1e-6)
    with pytest.raises(CheckpointError, match=r"config\.algorithm\.loss = .*this one has 'asyppo'"):
        train(short_run(model), tmp_path)


def test_a_reward_that_is_refused_leaves_nothing_behind(model, tmp_path):
    def two(completion, answer): ...

    with pytest.raises(ConfigError, match=r"cannot be called as function\(problem, completion"):
        train(short_run(model), tmp_path, reward=two)  # pyright: ignore[reportArgumentType]
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_run_of_the_critics_ends_at_its_bar_and_another_one_starts_with_them(
    model, tmp_path, capsys
):
    recipe = {
        "value__head_init": "rollout",
        "value__head": "sigmoid",
        "value__loss": "bce",
    }
    # The first explained variance passes this bar, so the run ends after its first step.
    critics_only = short_run(
        model,
        num_steps=4,
        algorithm__critic_warmup_steps=4,
        value__stop_at_explained_variance=-1.0,
        **recipe,
    )
    assert train(critics_only, tmp_path / "critics", reward=_share_of_digits)["steps"] == 1
    assert train(critics_only, tmp_path / "critics", reward=_share_of_digits)["steps"] == 1
    assert "the run is finished: its explained variance reached" in capsys.readouterr().out
    started = short_run(model, critic__path=str(tmp_path / "critics"), **recipe)
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    train(started, whole, reward=_share_of_digits)
    for num_steps in (1, 2):
        config = dataclasses.replace(started, num_steps=num_steps)
        train(config, resumed, reward=_share_of_digits)
        shutil.rmtree(tmp_path / "critics", ignore_errors=True)  # no longer needed
    assert_trees_equal(_saved(whole, 2), _saved(resumed, 2))
    assert (
        _untimed(read_metrics(whole / "metrics.jsonl"))[2]
        == (_untimed(read_metrics(resumed / "metrics.jsonl"))[2])
    )
    assert read_settings(str(whole)).value.warm_start == str(tmp_path / "critics")
