"""Prompts: records -> chat template -> token ids -> shuffled batches; the order can be restored."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import lru_cache
from typing import cast

import grain
import jax
import numpy as np
from jinja2 import TemplateError

from asyppo_jax.config import ConfigError, PromptConfig, ValueConfig
from asyppo_jax.tasks.records import DataError, Record
from asyppo_jax.tasks.tokenizers import Tokenizer, tokenize, unknown_pieces
from asyppo_jax.types import PromptBatch

_MAX_NAMED = 3  # a report names at most so many records per reason
_MAX_UNKNOWN = 8
_FIRST_WORDS = 6


@dataclass(frozen=True)
class Prompt:
    """The token ids of the actor's input, neither padded nor truncated, and their record."""

    tokens: tuple[int, ...]
    record: Record
    # What critics read before `tokens`, see `reference_tokens`; None without `reference_answer`
    reference: tuple[int, ...] | None = None


@dataclass(frozen=True)
class LeftOut:
    """A record without a prompt: its index in the records, and the first words of its problem."""

    index: int
    words: str

    def __str__(self) -> str:
        return f'records[{self.index}] "{self.words}"' if self.words else f"records[{self.index}]"


@dataclass(frozen=True)
class PromptReport:
    """How many records became prompts, and which were left out, each under its first reason.

    `shortest_too_long` is the token count of the shortest prompt in `too_long`; 0 if that is empty.
    """

    num_records: int
    num_prompts: int
    max_length: int
    empty: tuple[LeftOut, ...]
    without_answer: tuple[LeftOut, ...]
    too_long: tuple[LeftOut, ...]
    shortest_too_long: int
    unknown: str = ""  # see `unknown_text`

    def summary(self) -> str:
        """One line: the number of prompts, and which records were left out and why."""
        line = f"{self.num_prompts} prompts from {self.num_records} records"
        reasons = (
            ("without a problem", self.empty),
            ("without an answer", self.without_answer),
            (f"longer than {self.max_length} tokens", self.too_long),
        )
        counts = [
            f"{len(left_out)} {reason} ({name_some(left_out)})"
            for reason, left_out in reasons
            if left_out
        ]
        return f"{line}; left out: {', '.join(counts)}" if counts else line


def name_some(rows: Sequence[object], most: int = _MAX_NAMED) -> str:
    """The first of the rows that a report is about, and how many more there are."""
    named = ", ".join(map(str, rows[:most]))
    more = len(rows) - most
    return f"{named} and {more} more" if more > 0 else named


def make_prompts(
    records: Sequence[Record],
    tokenizer: Tokenizer,
    prompt: PromptConfig,
    value: ValueConfig | None = None,
) -> tuple[list[Prompt], PromptReport]:
    """The prompts of all usable records, and a report that names the records left out.

    With the template "chat" a prompt is the tokenizer's chat template, filled with the system
    prompt and the problem, up to the start of the assistant's answer. An empty system prompt gives
    no system message (some templates, such as Qwen2.5's, then insert their own). Any other template
    is plain text in which {problem} is replaced; the system prompt is not used. No special tokens
    are added, because a chat template contains its own.

    With `value.reference_answer` each prompt also has the tokens that only the critics read.

    Raises:
      ConfigError: the template lacks {problem}, or the tokenizer has no usable chat template.
      DataError: no record can be used, or a reference answer is longer than
        `value.reference_max_length`.
    """
    value = value or ValueConfig()
    prompts: list[Prompt] = []
    empty: list[LeftOut] = []
    without_answer: list[LeftOut] = []
    too_long: list[LeftOut] = []
    too_long_lengths: list[int] = []
    for index, record in enumerate(records):
        left_out = LeftOut(index, _first_words(record.problem))
        if not record.problem.strip():
            empty.append(left_out)
            continue
        if not record.answer.strip():
            without_answer.append(left_out)
            continue
        tokens = tokenize_problem(record.problem, tokenizer, prompt)
        if len(tokens) > prompt.max_length:
            too_long.append(left_out)
            too_long_lengths.append(len(tokens))
        else:
            prompts.append(with_reference(Prompt(tokens, record), tokenizer, value))
    report = PromptReport(
        num_records=len(records),
        num_prompts=len(prompts),
        max_length=prompt.max_length,
        empty=tuple(empty),
        without_answer=tuple(without_answer),
        too_long=tuple(too_long),
        shortest_too_long=min(too_long_lengths, default=0),
        unknown=unknown_text(prompts, tokenizer, prompt),
    )
    if not prompts:
        raise DataError(f"no prompt is left: {report.summary()}; {_fix(report)}")
    check_reference_lengths(prompts, value.reference_max_length)
    return prompts, report


def unknown_text(prompts: Sequence[Prompt], tokenizer: Tokenizer, settings: PromptConfig) -> str:
    """One line on text that the tokenizer does not know, so the model cannot see; "" if none."""
    unknown = [
        unknown_pieces(_render(p.record.problem, tokenizer, settings), p.tokens, tokenizer)
        for p in prompts
        if tokenizer.unk_token_id in p.tokens
    ]
    texts = [repr(text) for text in dict.fromkeys(itertools.chain(*unknown))]
    if not texts:
        return ""
    return (
        f"{sum(map(bool, unknown))} of {len(prompts)} prompts contain characters that the "
        f"tokenizer does not know ({name_some(texts, _MAX_UNKNOWN)})"
    )


def tokenize_problem(problem: str, tokenizer: Tokenizer, prompt: PromptConfig) -> tuple[int, ...]:
    """The prompt tokens of a problem, of any length; see `make_prompts` for the templates.

    Raises:
      ConfigError: the template lacks {problem}, or the tokenizer has no usable chat template.
    """
    _check_template(tokenizer, prompt)
    return tokenize(_render(problem, tokenizer, prompt), tokenizer)


def reference_tokens(answer: str, tokenizer: Tokenizer, value: ValueConfig) -> tuple[int, ...]:
    """The tokens of `value.reference_answer` with this answer, of any length."""
    return tokenize(value.reference_answer.replace("{answer}", answer), tokenizer)


def with_reference(prompt: Prompt, tokenizer: Tokenizer, value: ValueConfig) -> Prompt:
    """The prompt with what critics read before it; unchanged without `value.reference_answer`."""
    if not value.reference_answer:
        return prompt
    return replace(prompt, reference=reference_tokens(prompt.record.answer, tokenizer, value))


def check_reference_lengths(prompts: Sequence[Prompt], max_length: int) -> None:
    """Raises `DataError` if a reference is longer than `max_length` tokens.

    It is not cut, because a cut answer is a wrong one. Its record is not left out, because the
    actor's data would then depend on what its critics read.
    """
    lengths = [len(prompt.reference or ()) for prompt in prompts]
    too_long = [p for p, length in zip(prompts, lengths, strict=True) if length > max_length]
    if too_long:
        raise DataError(
            f"the reference answers of {len(too_long)} of {len(prompts)} problems are longer than "
            f"config.value.reference_max_length = {max_length} tokens, the first of "
            f'"{_first_words(too_long[0].record.problem)}"; raise it to {max(lengths)}'
        )


def _check_template(tokenizer: Tokenizer, prompt: PromptConfig) -> None:
    if prompt.template == "chat":
        if not tokenizer.chat_template:
            raise ConfigError(
                'config.prompt.template is "chat", but the tokenizer has no chat template; '
                "set it to a text that contains {problem}"
            )
    elif "{problem}" not in prompt.template:
        raise ConfigError(
            f"config.prompt.template is {prompt.template!r}, which does not contain {{problem}}; "
            'add it, or choose "chat"'
        )


def _render(problem: str, tokenizer: Tokenizer, prompt: PromptConfig) -> str:
    if prompt.template != "chat":
        return prompt.template.replace("{problem}", problem)
    messages = [{"role": "user", "content": problem}]
    if prompt.system_prompt:
        messages.insert(0, {"role": "system", "content": prompt.system_prompt})
    try:
        text = tokenizer.apply_chat_template(
            messages,
            chat_template=_dated(tokenizer.get_chat_template(), prompt.day),
            add_generation_prompt=True,
            tokenize=False,
            date_string=prompt.day.strftime("%d %b %Y"),
        )
    # Some templates reject a system message. A damaged one may raise anything.
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"the tokenizer's chat template fails ({reason}); if it allows no system message, "
            'set config.prompt.system_prompt to ""'
        ) from error
    return cast(str, text)


@lru_cache(maxsize=8)
def _dated(template: str, day: date) -> str:
    """A chat template in which today is `day`, so that prompts do not change overnight."""
    # transformers gives templates a function of its own, which arguments cannot replace.
    return _TODAY.sub(lambda call: repr(day.strftime(call[2])), template)


_TODAY = re.compile(r"""\bstrftime_now\(\s*(["'])(.*?)\1\s*\)""")


def has_date(tokenizer: Tokenizer) -> bool:
    """Whether the chat template writes a date into prompts."""
    template = str(tokenizer.chat_template)
    return "date_string" in template or "strftime_now" in template


def missing_first_token(tokenizer: Tokenizer, prompt: PromptConfig) -> str:
    """A sentence if a plain template lacks the token that begins a text, or ""."""
    first = str(tokenizer.bos_token)
    if prompt.template == "chat" or prompt.template.startswith(first):
        return ""
    if tokenizer("a")["input_ids"][:1] != [tokenizer.bos_token_id]:
        return ""
    return (
        f"config.prompt.template does not start with {first!r}, with which this model's texts "
        "begin; put it in front, unless the model was trained without it"
    )


def _first_words(problem: str) -> str:
    words = problem[:400].split()
    more = len(words) > _FIRST_WORDS
    return " ".join(words[:_FIRST_WORDS])[:60] + (" …" if more else "")


def _fix(report: PromptReport) -> str:
    if report.too_long:
        return f"raise config.prompt.max_length to {report.shortest_too_long} or more"
    if report.without_answer:
        return "set answer_field and answer_pattern of config.train_data or config.eval_data"
    return "set problem_field of config.train_data or config.eval_data"


def pad_prompts(prompts: Sequence[Prompt], max_length: int, pad_id: int) -> PromptBatch:
    """Left-padded prompts: NumPy tokens [N, P] int32 and mask [N, P] bool, with P = `max_length`.

    Raises:
      ValueError: a prompt is longer than `max_length` (`make_prompts` leaves such prompts out).
    """
    tokens = np.full((len(prompts), max_length), pad_id, np.int32)
    mask = np.zeros((len(prompts), max_length), bool)
    for row, prompt in enumerate(prompts):
        length = len(prompt.tokens)
        if length > max_length:
            raise ValueError(f"prompt {row} has {length} tokens, more than max_length {max_length}")
        tokens[row, max_length - length :] = prompt.tokens
        mask[row, max_length - length :] = True
    return PromptBatch(tokens=cast(jax.Array, tokens), mask=cast(jax.Array, mask))


def pad_critic_prompts(prompts: Sequence[Prompt], max_length: int, pad_id: int) -> PromptBatch:
    """What critics read before a completion, [padding | reference | prompt], padded on the left.

    There is no padding between reference and prompt, because the tokens of a sequence must be
    contiguous for positions and packing.

    Raises:
      ConfigError: a prompt has no reference.
      ValueError: reference and prompt are longer than `max_length`.
    """
    joined = []
    for prompt in prompts:
        if prompt.reference is None:
            raise ConfigError(
                "config.value.reference_answer is set, but the prompts have no reference answers; "
                "make them by make_prompts(records, tokenizer, config.prompt, config.value)"
            )
        joined.append(Prompt((*prompt.reference, *prompt.tokens), prompt.record))
    return pad_prompts(joined, max_length, pad_id)


def make_prompt_iterator(
    prompts: Sequence[Prompt], *, batch_size: int, seed: int
) -> grain.DatasetIterator[list[Prompt]]:
    """An endless iterator over the prompts, `batch_size` at a time.

    Each epoch is a new permutation of all prompts that depends on `seed` alone. If `batch_size`
    does not divide an epoch, a batch continues into the next epoch. The order does not depend on
    the number of hosts: every host draws all prompts of a step and uses those of its own devices.
    The position, which `get_state()` and `set_state()` save and restore exactly, is therefore one
    number, and a run can resume on any number of hosts.

    Raises:
      DataError: there are no prompts.
      ValueError: `batch_size` is below 1 or `seed` below 0.
    """
    if not prompts:
        raise DataError("there are no prompts to iterate over")
    if batch_size < 1 or seed < 0:
        raise ValueError(f"batch_size {batch_size} must be at least 1, seed {seed} at least 0")
    # .seed() hashes the seed. With .shuffle(seed), epoch e of seed s + 1 would equal epoch e + 1 of
    # seed s.
    dataset = grain.MapDataset.source(prompts).seed(seed).shuffle().repeat()
    dataset = dataset.batch(batch_size, batch_fn=list)
    # No prefetching: the prompts are in memory, so it would cost threads and save nothing.
    return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)))
