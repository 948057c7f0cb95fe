"""Prompts: templates, records left out, left padding, and an order that can be restored."""

import itertools
import json

import numpy as np
import pytest

from asyppo_jax.config import ConfigError, PromptConfig, ValueConfig
from asyppo_jax.tasks.prompts import (
    Prompt,
    has_date,
    make_prompt_iterator,
    make_prompts,
    missing_first_token,
    pad_critic_prompts,
    pad_prompts,
)
from asyppo_jax.tasks.records import DataError, Record
from tests.character_tokenizer import character_tokenizer


def numbered_prompts(n: int) -> list[Prompt]:
    return [Prompt((i,), Record(f"problem {i}", str(i))) for i in range(n)]


def numbers(batch: list[Prompt]) -> list[int]:
    return [prompt.tokens[0] for prompt in batch]


def texts(tokenizer, settings: PromptConfig, problem: str = "1+1") -> str:
    prompts, _ = make_prompts([Record(problem, "2")], tokenizer, settings)
    return tokenizer.decode(prompts[0].tokens)


def test_the_chat_prompt_ends_at_the_start_of_the_assistants_answer(tokenizer):
    text = texts(tokenizer, PromptConfig(system_prompt="be brief"))
    assert text == "<system>be brief<eos><user>1+1<eos><assistant>"


def test_an_empty_system_prompt_gives_no_system_message(tokenizer):
    assert texts(tokenizer, PromptConfig(system_prompt="")) == "<user>1+1<eos><assistant>"


def test_a_date_in_a_chat_template_is_that_of_the_settings(tokenizer):
    dated = character_tokenizer(
        "{{ strftime_now('%d %m %y') }} {{ strftime_now( \"%Y\" ) }}={{ date_string | lower }}="
        "{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    assert has_date(dated) and not has_date(tokenizer)
    settings = PromptConfig(system_prompt="")
    assert texts(dated, settings) == "26 07 24 2024=26 jul 2024=1+1"
    settings = PromptConfig(system_prompt="", date="2025-01-02")
    assert texts(dated, settings) == "02 01 25 2025=02 jan 2025=1+1"
    with pytest.raises(ConfigError, match=r"config\.prompt\.date is 'today'; write it as YYYY-MM"):
        texts(dated, PromptConfig(date="today"))


def test_a_chat_template_that_fails_in_any_way_is_refused():
    for template in ("{{ 1 / 0 }}", "{{ messages[9].content }}", "{% for %}", "{{ 'a' + 1 }}"):
        with pytest.raises(ConfigError, match="the tokenizer's chat template fails") as caught:
            texts(character_tokenizer(template), PromptConfig())
        assert "\n" not in str(caught.value)


def test_a_plain_template_without_the_first_token_is_reported():
    from tokenizers.processors import TemplateProcessing

    adding, plain = character_tokenizer(), PromptConfig(template="{problem}")
    assert missing_first_token(adding, plain) == ""
    adding.add_special_tokens({"bos_token": "<user>"})
    assert missing_first_token(adding, plain) == ""  # it does not put it before texts itself
    adding.backend_tokenizer.post_processor = TemplateProcessing(
        single="<user> $A", special_tokens=[("<user>", adding.convert_tokens_to_ids("<user>"))]
    )
    assert "does not start with '<user>', with which" in missing_first_token(adding, plain)
    assert missing_first_token(adding, PromptConfig(template="<user>{problem}")) == ""
    assert missing_first_token(adding, PromptConfig()) == ""


def test_a_plain_template_makes_the_full_prompt(tokenizer):
    settings = PromptConfig(template="q {problem}=?\n", system_prompt="be brief")
    assert texts(tokenizer, settings) == "q 1+1=?\n"
    assert texts(tokenizer, settings, "a {problem} b") == "q a <unk>problem<unk> b=?\n"


def test_no_special_token_is_added_to_chat_or_plain_templates(tokenizer):
    from tokenizers.processors import TemplateProcessing

    adding = character_tokenizer()
    adding.backend_tokenizer.post_processor = TemplateProcessing(
        single="<eos> $A", special_tokens=[("<eos>", adding.convert_tokens_to_ids("<eos>"))]
    )
    assert adding.decode(adding("a").input_ids) == "<eos>a"  # this tokenizer adds one by default
    for settings in (PromptConfig(system_prompt=""), PromptConfig(template="{problem}")):
        assert texts(adding, settings) == texts(tokenizer, settings)


def test_left_out_records_are_counted_and_named_once(tokenizer):
    settings = PromptConfig(template="{problem}", max_length=8)
    records = [
        Record("1+1=?", "2"),
        Record("  ", "2"),
        Record("one two three four five six seven", "2"),
        Record("2+2=?", " "),
        Record("", ""),
        Record("exactly8", "2"),
        Record("nine char", "2"),
    ]
    prompts, report = make_prompts(records, tokenizer, settings)
    assert [prompt.record for prompt in prompts] == [records[0], records[5]]
    assert [record.index for record in report.empty] == [1, 4]
    assert [record.index for record in report.without_answer] == [3]
    assert [record.index for record in report.too_long] == [2, 6]
    assert report.shortest_too_long == 9
    assert report.summary() == (
        "2 prompts from 7 records; left out: 2 without a problem (records[1], records[4]), "
        '1 without an answer (records[3] "2+2=?"), 2 longer than 8 tokens '
        '(records[2] "one two three four five six …", records[6] "nine char")'
    )


def test_the_summary_stays_short_if_many_records_are_left_out(tokenizer):
    records = [Record("1", "1"), *[Record("2", "")] * 500]
    _, report = make_prompts(records, tokenizer, PromptConfig(template="{problem}"))
    assert report.summary().endswith('records[3] "2" and 497 more)')
    assert len(report.without_answer) == 500


def test_the_summary_names_no_reason_if_nothing_is_left_out(tokenizer):
    _, report = make_prompts([Record("1", "1")], tokenizer, PromptConfig())
    assert report.summary() == "1 prompts from 1 records"


@pytest.mark.parametrize(
    ("record", "fix"),
    [
        (Record("a" * 20, "1"), r"raise config\.prompt\.max_length to 20 or more"),
        (Record("a", ""), "set answer_field and answer_pattern"),
        (Record("", "1"), "set problem_field"),
    ],
)
def test_if_no_prompt_is_left_the_error_says_how_to_fix_it(tokenizer, record, fix):
    settings = PromptConfig(template="{problem}", max_length=10)
    with pytest.raises(DataError, match=f"no prompt is left: 0 prompts from 1 records.*{fix}"):
        make_prompts([record], tokenizer, settings)


def test_text_that_the_tokenizer_does_not_know_is_reported_in_one_line(tokenizer):
    records = [Record(problem, "1") for problem in ("What?", "1+1", "Why? Wow!")]
    _, report = make_prompts(records, tokenizer, PromptConfig(template="<user>{problem}<eos>"))
    assert report.unknown == (
        "2 of 3 prompts contain characters that the tokenizer does not know ('W', '!')"
    )
    _, report = make_prompts(records[1:2], tokenizer, PromptConfig(system_prompt=""))
    assert report.unknown == ""
    records = [Record("ABCDEFGHIJ", "1")]
    _, report = make_prompts(records, tokenizer, PromptConfig(system_prompt=""))
    assert report.unknown.endswith("('A', 'B', 'C', 'D', 'E', 'F', 'G', 'H' and 2 more)")


def test_invalid_templates_are_refused(tokenizer):
    records = [Record("1", "1")]
    with pytest.raises(ConfigError, match=r"'q: ', which does not contain \{problem\}"):
        make_prompts(records, tokenizer, PromptConfig(template="q: "))
    with pytest.raises(ConfigError, match="the tokenizer has no chat template"):
        make_prompts(records, character_tokenizer(None), PromptConfig())
    refusing = character_tokenizer(
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    )
    with pytest.raises(ConfigError, match=r'fails \(no system\).*system_prompt to ""'):
        make_prompts(records, refusing, PromptConfig())


def test_padding_is_on_the_left_and_masked():
    record = Record("p", "a")
    batch = pad_prompts([Prompt((5, 6), record), Prompt((7, 8, 9), record)], 3, pad_id=1)
    assert isinstance(batch.tokens, np.ndarray) and isinstance(batch.mask, np.ndarray)
    assert (batch.tokens.dtype, batch.mask.dtype) == (np.int32, np.bool_)
    np.testing.assert_array_equal(batch.tokens, [[1, 5, 6], [7, 8, 9]])
    np.testing.assert_array_equal(batch.mask, [[False, True, True], [True, True, True]])
    with pytest.raises(ValueError, match="prompt 0 has 3 tokens, more than max_length 2"):
        pad_prompts([Prompt((7, 8, 9), record)], 2, pad_id=1)


def iterate(prompts: list[Prompt], batch_size: int, seed: int = 0):
    return make_prompt_iterator(prompts, batch_size=batch_size, seed=seed)


def test_each_epoch_has_every_prompt_once_in_a_new_order():
    iterator = iterate(numbered_prompts(12), 4)
    drawn = [numbers(next(iterator)) for _ in range(9)]
    epochs = [list(itertools.chain(*drawn[i : i + 3])) for i in (0, 3, 6)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(12))] * 3
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_no_prompt_is_lost_if_the_batch_size_does_not_divide_the_epoch():
    iterator = iterate(numbered_prompts(5), 3)
    drawn = list(itertools.chain(*(numbers(next(iterator)) for _ in range(5))))
    assert [sorted(drawn[i : i + 5]) for i in (0, 5, 10)] == [list(range(5))] * 3


def test_a_batch_larger_than_the_data_repeats_prompts_evenly():
    drawn = numbers(next(iterate(numbered_prompts(3), 6)))
    assert sorted(drawn) == [0, 0, 1, 1, 2, 2]


def test_the_order_depends_on_the_seed_alone():
    prompts = numbered_prompts(500)
    first, again = iterate(prompts, 8, seed=3), iterate(prompts, 8, seed=3)
    assert [next(first) for _ in range(3)] == [next(again) for _ in range(3)]
    orders = {tuple(numbers(next(iterate(prompts, 8, seed=seed)))) for seed in range(10)}
    assert len(orders) == 10


def test_neighbouring_seeds_share_no_epoch():
    prompts = numbered_prompts(40)
    epochs = set()
    for seed in range(2):
        iterator = iterate(prompts, 40, seed=seed)
        epochs |= {tuple(numbers(next(iterator))) for _ in range(2)}
    assert len(epochs) == 4


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_restored_iterator_continues_with_the_same_batches(steps):
    prompts = numbered_prompts(10)
    iterator = iterate(prompts, 4, seed=1)
    for _ in range(steps):
        next(iterator)
    state = json.loads(json.dumps(iterator.get_state()))  # as a checkpoint stores it
    expected = [next(iterator) for _ in range(6)]
    restored = iterate(prompts, 4, seed=1)
    restored.set_state(state)
    assert [next(restored) for _ in range(6)] == expected
    iterator.set_state(state)
    assert [next(iterator) for _ in range(6)] == expected


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"seed": -1}])
def test_invalid_iterator_arguments_are_refused(wrong):
    with pytest.raises(ValueError, match="must be at least 1"):
        make_prompt_iterator(numbered_prompts(3), **{"batch_size": 1, "seed": 0} | wrong)
    with pytest.raises(DataError, match="no prompts"):
        make_prompt_iterator([], batch_size=1, seed=0)


def test_critics_read_the_reference_directly_before_the_prompt(tokenizer):
    settings = PromptConfig(template="{problem}=")
    records = [Record("1+1", "2"), Record("9+9", "18")]
    value = ValueConfig(reference_answer="{answer} ", reference_max_length=3)
    prompts, _ = make_prompts(records, tokenizer, settings, value)
    plain, _ = make_prompts(records, tokenizer, settings)
    assert [p.tokens for p in prompts] == [p.tokens for p in plain]
    assert [p.reference for p in plain] == [None, None]
    batch = pad_critic_prompts(prompts, 8, pad_id=0)
    np.testing.assert_array_equal(np.asarray(batch.mask).sum(axis=1), [6, 7])
    texts = [
        tokenizer.decode(row[real]) for row, real in zip(batch.tokens, batch.mask, strict=True)
    ]
    assert texts == ["2 1+1=", "18 9+9="]
    with pytest.raises(ConfigError, match="the prompts have no reference answers; make them by"):
        pad_critic_prompts(plain, 8, pad_id=0)


def test_references_that_are_too_long_are_refused_with_the_longest(tokenizer):
    records = [Record("1", "2"), Record("3", "123"), Record("4", "12345")]
    value = ValueConfig(reference_answer="{answer}", reference_max_length=2)
    message = (
        r"the reference answers of 2 of 3 problems are longer than "
        r'config\.value\.reference_max_length = 2 tokens, the first of "3"; raise it to 5$'
    )
    with pytest.raises(DataError, match=message):
        make_prompts(records, tokenizer, PromptConfig(template="{problem}"), value)
