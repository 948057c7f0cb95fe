"""A run whose critics read reference answers: resumed, loaded, exported, measured and recorded."""

from typing import Any

import numpy as np
import orbax.checkpoint as ocp
import pytest

from asyppo_jax import load_actor, load_critics
from asyppo_jax.config import CheckpointConfig, ConfigError, RewardConfig, from_config_dict
from asyppo_jax.evaluation.true_values import sample_states
from asyppo_jax.evaluation.value_errors import values_at
from asyppo_jax.models.config import ModelError
from asyppo_jax.runs.checkpoint import make_manager
from asyppo_jax.runs.export import export_run
from asyppo_jax.runs.metrics import read_metrics
from asyppo_jax.runs.rollout_files import read_rollout_file
from asyppo_jax.tasks.prompts import make_prompts, reference_tokens
from asyppo_jax.tasks.records import load_records
from asyppo_jax.tasks.rewards import RewardPool
from asyppo_jax.train import train
from configs import tiny_test
from experiments.critics.record import load_rollout, load_states, save
from tests.tiny import assert_trees_equal, save_model_directory

pytestmark = pytest.mark.slow  # tests/algorithm/test_reference_answer.py shows it for one step

TEMPLATE = "{answer}\n"


def make_run_config(model, num_steps=3, **changes):
    values = tiny_test.get_config()
    values.actor.path = model
    values.num_steps = num_steps
    values.checkpoint.every = 1
    values.algorithm.critic_warmup_steps = 0
    values.log.tensorboard = False
    values.log.rollouts_every = 1
    values.log.heldout_prompts = 2
    values.value.reference_answer = TEMPLATE
    values.value.reference_max_length = 4
    for name, value in changes.items():
        section, _, field = name.rpartition("__")
        values[section][field] = value
    return from_config_dict(values)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model_directory(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def run(model, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    train(make_run_config(model), workdir)
    return workdir


def values_of_answer(critics, tokenizer, answer):
    """V before each token of a saved answer [K, n]."""
    prompt = tokenizer(answer.prompt)["input_ids"]
    reference = reference_tokens(answer.reference, tokenizer, critics.config.value)
    values = critics.values([[*prompt, *answer.tokens]], references=[reference])
    return values[:, 0, len(prompt) - 1 : -1]


def test_a_resumed_run_equals_one_that_was_not_interrupted(run, model, tmp_path):
    for num_steps in (2, 3):
        train(make_run_config(model, num_steps), tmp_path)
    states = []
    for workdir in (run, tmp_path):
        with make_manager(str(workdir), CheckpointConfig()) as manager:
            restored = manager.restore(3, args=ocp.args.Composite(state=ocp.args.StandardRestore()))
        states.append(restored["state"])
    assert_trees_equal(*states)
    timed = ("time/", "rollout/tokens_per_s")
    rows, others = (
        [{k: x for k, x in row.items() if not k.startswith(timed)} for row in rows]
        for rows in (read_metrics(workdir / "metrics.jsonl") for workdir in (run, tmp_path))
    )
    assert rows == others


@pytest.mark.parametrize(("file", "step"), [("heldout_00000003", 3), ("step_00000003", 2)])
def test_saved_values_are_those_of_loaded_critics_that_read_the_references(run, file, step):
    """A file of a training step has the values before its update."""
    critics, tokenizer = load_critics(str(run), step=step), load_actor(str(run)).tokenizer
    for answer in read_rollout_file(run / "rollouts" / f"{file}.jsonl")[:6:2]:
        values = values_of_answer(critics, tokenizer, answer)
        np.testing.assert_allclose(np.asarray(answer.values), values, atol=1e-5)


def test_exported_critics_know_that_they_read_references(run, model, tmp_path):
    export_run(str(run), str(tmp_path / "out"))
    before, after = load_critics(str(run)), load_critics(str(tmp_path / "out"))
    assert after.config.value.reference_answer == TEMPLATE
    left, right = (c.values([[5, 6, 7]], references=[[8, 9]]) for c in (before, after))
    np.testing.assert_array_equal(left, right)
    card = (tmp_path / "out" / "critic_0" / "README.md").read_text()
    assert r'must begin with the reference answer to the problem, as `"{answer}\n"`' in card
    critic = {"critic__path": str(tmp_path / "out" / "critic_0"), "critic__num_layers": None}
    with pytest.raises(ModelError, match=r"trained with reference_answer = '\{answer\}\\n', but"):
        train(make_run_config(model, value__reference_answer="", **critic), tmp_path / "other")


def test_a_run_without_references_does_not_start_with_these_critics(run, model, tmp_path):
    changes: dict[str, Any] = {"critic__path": str(run), "value__reference_answer": ""}
    with pytest.raises(ConfigError, match=r"is .* but here it is ''; use the same"):
        train(make_run_config(model, **changes), tmp_path)


def first_is_a_digit(problem, completion, answer):
    return float(completion[:1].isdigit())


def test_states_of_known_value_and_records_have_what_the_critics_read(run, tmp_path):
    actor, critics = load_actor(str(run)), load_critics(str(run))
    config, tokenizer = actor.config, actor.tokenizer
    records = load_records(config.eval_data)[:3]
    prompts, _ = make_prompts(records, tokenizer, config.prompt, config.value)
    options = {"group_size": 2, "continuations": 2, "fractions": (0.5,)}
    with RewardPool(RewardConfig(num_workers=1, time_limit=60.0), first_is_a_digit) as pool:
        states = sample_states(actor, prompts, pool, **options)
        plain, _ = make_prompts(records, tokenizer, config.prompt)
        with pytest.raises(ConfigError, match="the prompts have no reference answers; make them"):
            sample_states(actor, plain, pool, **options)
    rollout = states.rollout
    values = values_at(critics, states)
    for row, prompt in enumerate(np.repeat(np.array(prompts, object), 2)):
        length = int(rollout.completion_mask[row].sum())
        completion = rollout.tokens[row, -rollout.completion_mask.shape[1] :][:length]
        text = [*prompt.tokens, *completion.tolist()]
        one = critics.values([text], references=[prompt.reference])
        start = len(prompt.tokens) - 1
        np.testing.assert_allclose(values[:, row, :length], one[:, 0, start:-1], atol=1e-5)

    save(tmp_path / "states.npz", states, prompts)  # and what it does not write is made again
    again = load_states(tmp_path / "states.npz", config, tokenizer).rollout
    for name in ("critic_prompt", "critic_prompt_mask", "tokens"):
        np.testing.assert_array_equal(getattr(again, name), getattr(rollout, name))
    off = make_run_config(config.actor.path, value__reference_answer="")
    assert load_rollout(tmp_path / "states.npz", off, tokenizer).critic_prompt is None
    with np.load(tmp_path / "states.npz") as arrays:
        older = {name: arrays[name] for name in arrays if name != "answers"}
    np.savez(tmp_path / "older.npz", **older)
    with pytest.raises(ConfigError, match="has no reference answers, because an earlier version"):
        load_rollout(tmp_path / "older.npz", config, tokenizer)
