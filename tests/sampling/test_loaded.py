"""Generating with an actor that was loaded."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from asyppo_jax import load_actor, load_critics
from asyppo_jax.config import ConfigError, PromptConfig
from asyppo_jax.sampling.loaded import check_texts
from asyppo_jax.tasks.prompts import reference_tokens
from tests.saved_run import write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"))


def test_generate_gives_the_same_texts_for_a_seed_and_greedy_needs_none(run):
    actor = load_actor(run[0])
    texts = actor.generate(["1+2", "3+4+5"], num_samples=3, max_completion_length=6, seed=7)
    assert [len(some) for some in texts] == [3, 3]
    assert len({one for some in texts for one in some}) > 1
    again = actor.generate(["1+2", "3+4+5"], num_samples=3, max_completion_length=6, seed=7)
    assert texts == again
    greedy = [
        actor.generate(["1+2"], max_completion_length=6, temperature=0.0, seed=seed)
        for seed in (0, 1)
    ]
    assert greedy[0] == greedy[1]
    plain = PromptConfig(template="{problem}")  # what the run's template makes of "1+2"
    ((same,),) = actor.generate(["1+2="], max_completion_length=6, temperature=0.0, prompt=plain)
    assert same == greedy[0][0][0]
    assert actor.generate([]) == []
    sampling = dataclasses.replace(actor.config.sampling, max_completion_length=6)
    config = dataclasses.replace(actor.config, sampling=sampling)
    assert dataclasses.replace(actor, config=config).generate(["1+2"], temperature=0.0) == greedy[0]


@pytest.mark.parametrize(
    ("problems", "kind"),
    [({"input_ids": [[1]]}, "dict"), ([[1, 2]], "list"), (["1+1", {}], "dict")],
)
def test_what_is_no_list_of_texts_is_refused(problems, kind):
    with pytest.raises(ConfigError, match=f"problems must be texts, not {kind}; generate makes"):
        check_texts(problems)
    with pytest.raises(
        ConfigError, match=r"problems is one text; give a list of texts: \['1\+1'\]"
    ):
        check_texts("1+1")


def test_text_that_the_tokenizer_does_not_know_is_said(run, capsys):
    actor = load_actor(run[0])
    actor.generate(["1+2", "1 plus Ω"], max_completion_length=1, temperature=0.0)
    message = capsys.readouterr().err
    assert message.startswith(
        "1 of 2 prompts contain characters that the tokenizer does not know ("
    )
    assert "'Ω'" in message
    actor.generate(["1+2"], max_completion_length=1, temperature=0.0)
    assert capsys.readouterr().err == ""


def test_a_runs_stop_strings_end_what_it_generates(run):
    actor = load_actor(run[0])
    ((whole,),) = actor.generate(["1+2"], max_completion_length=6, temperature=0.0)
    stop = whole[1:2]
    sampling = dataclasses.replace(actor.config.sampling, stop_strings=(stop,))
    config = dataclasses.replace(actor.config, sampling=sampling)
    stopped = dataclasses.replace(actor, config=config)
    ((text,),) = stopped.generate(["1+2"], max_completion_length=6, temperature=0.0)
    assert text == whole[: whole.index(stop) + 1] and len(text) < len(whole)


def test_lists_arrays_and_what_a_tokenizer_returns_are_all_taken(run):
    actor, critics = load_actor(run[0]), load_critics(run[0])
    batch = actor.tokenizer(["1+2=", "3+4="])
    arrays = np.asarray(batch["input_ids"])
    for call in (actor.logits, critics.values):
        expected = np.asarray(call(arrays))
        for tokens in (batch, batch["input_ids"], jnp.asarray(arrays)):
            np.testing.assert_array_equal(call(tokens), expected)


@pytest.mark.parametrize(
    ("tokens", "mask", "message"),
    [
        ([[1, 2], [3]], None, "the rows of tokens have different lengths; pad them"),
        ([1, 2], None, r"tokens have shape \(2,\) and dtype int64; give ids \[B, T\]"),
        ([["a"]], None, r"give ids \[B, T\]"),
        ([[1, 2]], [[True]], r"the mask has shape \(1, 1\), the tokens have \(1, 2\)"),
        ([[1, 999]], None, "token ids are between 1 and 999, but the vocabulary has"),
    ],
)
def test_tokens_that_do_not_fit_are_refused_in_one_sentence(run, tokens, mask, message):
    with pytest.raises(ConfigError, match=message):
        load_actor(run[0]).logits(tokens, mask)


def test_a_cell_shows_one_line_about_what_was_loaded(run):
    actor, critics = load_actor(run[0]), load_critics(run[0])
    for loaded, kind in ((actor, "LoadedActor"), (critics, "x critic")):
        assert "\n" not in repr(loaded) and len(repr(loaded)) < 250
        assert kind in repr(loaded) and "float32, " in repr(loaded) and "cpu" in repr(loaded)
        assert f"step {loaded.step}" in repr(loaded)


def test_one_text_in_place_of_a_list_is_refused(run):
    with pytest.raises(
        ConfigError, match=r"problems is one text; give a list of texts: \['1\+2'\]"
    ):
        load_actor(run[0]).generate("1+2")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("temp", "did you mean temperature?"),
        ("num_sample", "did you mean num_samples?"),
        ("n", "the options are num_samples, max_completion_length, seed, prompt, temperature, "),
    ],
)
def test_an_option_that_does_not_exist_is_refused_with_the_nearest_one(run, name, hint):
    options: dict[str, Any] = {name: 0.5}
    with pytest.raises(TypeError) as refused:
        load_actor(run[0]).generate(["1+2"], **options)
    assert str(refused.value).startswith(f"generate() has no option {name!r}; {hint}")


def test_critics_that_read_references_take_them_for_each_row(run):
    plain, tokenizer = load_critics(run[0]), load_actor(run[0]).tokenizer
    value = dataclasses.replace(plain.config.value, reference_answer="{answer}\n")
    critics = dataclasses.replace(plain, config=dataclasses.replace(plain.config, value=value))
    references = [reference_tokens(answer, tokenizer, value) for answer in ("3", "12")]
    rows = np.asarray(tokenizer(["1+2=", "3+9="])["input_ids"])
    values = critics.values(rows, references=references)
    assert values.shape == (2, 2, 4)
    padded = np.pad(rows, ((0, 0), (2, 1)))
    mask = np.pad(np.ones_like(rows, bool), ((0, 0), (2, 1)))
    with_padding = critics.values(padded, mask, references=references)[:, :, 2:-1]
    for row, (reference, text) in enumerate(zip(references, rows, strict=True)):
        joined = np.asarray([[*reference, *text]])
        alone = plain.values(joined)[:, 0, len(reference) :]
        for ours in (values, with_padding):
            np.testing.assert_allclose(ours[:, row], alone, atol=1e-5)


def test_references_that_are_missing_or_not_read_are_refused_in_one_sentence(run):
    plain = load_critics(run[0])
    with pytest.raises(ConfigError, match="reference_answer = ''; give no references"):
        plain.values([[1, 2]], references=[[3]])
    value = dataclasses.replace(plain.config.value, reference_answer="{answer}")
    critics = dataclasses.replace(plain, config=dataclasses.replace(plain.config, value=value))
    with pytest.raises(ConfigError, match="give references, of each row the token ids"):
        critics.values([[1, 2]])
    with pytest.raises(ConfigError, match="there are 1 references for 2 rows of tokens"):
        critics.values([[1, 2], [3, 4]], references=[[5]])
    with pytest.raises(ConfigError, match="token ids are between 1 and 999"):
        critics.values([[1, 2]], references=[[999]])
