"""Prompts: records -> chat template -> token ids -> batches in a shuffled, restorable order."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import grain
import jax
import numpy as np
from jinja2 import TemplateError

from asyppo_jax.config import ConfigError, PromptConfig
from asyppo_jax.tasks.records import DataError, Record
from asyppo_jax.tasks.tokenizers import Tokenizer, tokenize
from asyppo_jax.types import PromptBatch

_NAMED = 3  # how many left-out records of a kind a summary names
_FIRST_WORDS = 6


@dataclass(frozen=True)
class Prompt:
    """The token ids that the actor is given, neither padded nor truncated, and their record."""

    tokens: tuple[int, ...]
    record: Record


@dataclass(frozen=True)
class LeftOut:
    """A record that makes no prompt: its index in the records, its problem's first words."""

    index: int
    words: str

    def __str__(self) -> str:
        return f'records[{self.index}] "{self.words}"' if self.words else f"records[{self.index}]"


@dataclass(frozen=True)
class PromptReport:
    """What became of the records; each left-out record is named once, under the first that holds.

    `shortest_too_long` is the token count of the shortest prompt in `too_long`, 0 if there is none.
    """

    num_records: int
    num_prompts: int
    max_length: int
    empty: tuple[LeftOut, ...]
    without_answer: tuple[LeftOut, ...]
    too_long: tuple[LeftOut, ...]
    shortest_too_long: int

    def summary(self) -> str:
        """One line: how many prompts, and which records were left out and why."""
        line = f"{self.num_prompts} prompts from {self.num_records} records"
        kinds = (
            ("without a problem", self.empty),
            ("without an answer", self.without_answer),
            (f"longer than {self.max_length} tokens", self.too_long),
        )
        reasons = [f"{len(some)} {kind} ({_names(some)})" for kind, some in kinds if some]
        return f"{line}; left out: {', '.join(reasons)}" if reasons else line


def _names(left_out: Sequence[LeftOut]) -> str:
    named = ", ".join(str(one) for one in left_out[:_NAMED])
    more = len(left_out) - _NAMED
    return f"{named} and {more} more" if more > 0 else named


def make_prompts(
    records: Sequence[Record], tokenizer: Tokenizer, prompt: PromptConfig
) -> tuple[list[Prompt], PromptReport]:
    """Turns each problem into prompt tokens; what cannot be used is left out and named.

    With the template "chat" a prompt is the tokenizer's chat template of the system prompt and the
    problem, up to where the assistant speaks. An empty system prompt gives no system message (some
    templates, Qwen2.5's for one, then put in their own). Any other template is plain text in which
    {problem} is replaced; the system prompt has no part in it. No special tokens are added to
    either: a chat template writes its own.

    Raises:
      ConfigError: a template that lacks {problem}, or a tokenizer without a usable chat template.
      DataError: no record makes a prompt.
    """
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
            prompts.append(Prompt(tokens, record))
    report = PromptReport(
        num_records=len(records),
        num_prompts=len(prompts),
        max_length=prompt.max_length,
        empty=tuple(empty),
        without_answer=tuple(without_answer),
        too_long=tuple(too_long),
        shortest_too_long=min(too_long_lengths, default=0),
    )
    if not prompts:
        raise DataError(f"no prompt is left: {report.summary()}; {_mend(report)}")
    return prompts, report


def tokenize_problem(problem: str, tokenizer: Tokenizer, prompt: PromptConfig) -> tuple[int, ...]:
    """The tokens that the actor is given for a problem, see `make_prompts`; of any length.

    Raises:
      ConfigError: a template that lacks {problem}, or a tokenizer without a usable chat template.
    """
    _check_template(tokenizer, prompt)
    return tokenize(_render(problem, tokenizer, prompt), tokenizer)


def _check_template(tokenizer: Tokenizer, prompt: PromptConfig) -> None:
    if prompt.template == "chat":
        if not tokenizer.chat_template:
            raise ConfigError(
                'config.prompt.template is "chat", but the tokenizer has no chat template; '
                "set it to a text with {problem}"
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
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    except TemplateError as error:  # some templates refuse a system message, in their own words
        raise ConfigError(
            f"the tokenizer's chat template fails ({error}); if it takes no system message, "
            'set config.prompt.system_prompt to ""'
        ) from error
    return cast(str, text)


def _first_words(problem: str) -> str:
    words = problem[:400].split()
    more = len(words) > _FIRST_WORDS
    return " ".join(words[:_FIRST_WORDS])[:60] + (" …" if more else "")


def _mend(report: PromptReport) -> str:
    if report.too_long:
        return f"raise config.prompt.max_length to {report.shortest_too_long} or more"
    if report.without_answer:
        return "set answer_field and answer_pattern of the data, config.train_data or eval_data"
    return "set problem_field of the data, config.train_data or config.eval_data"


def pad_prompts(prompts: Sequence[Prompt], max_length: int, pad_id: int) -> PromptBatch:
    """Pads on the left: tokens [N, P] int32 and mask [N, P] bool, numpy, P = `max_length`.

    Raises:
      ValueError: a prompt is longer than `max_length` (`make_prompts` leaves such out).
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


def make_prompt_iterator(
    prompts: Sequence[Prompt], *, batch_size: int, seed: int
) -> grain.DatasetIterator[list[Prompt]]:
    """An endless iterator over the prompts, `batch_size` at a time.

    Each epoch is a new permutation of all prompts, a pure function of `seed`, and runs on into the
    next where `batch_size` does not divide it. Hosts do not matter: each draws the prompts of the
    whole step, and keeps those that its devices hold. So the place, which `get_state()` and
    `set_state()` save and restore exactly, is one number that any number of hosts goes on from.

    Raises:
      DataError: there are no prompts.
      ValueError: a batch size or seed that cannot be.
    """
    if not prompts:
        raise DataError("there are no prompts to iterate over")
    if batch_size < 1 or seed < 0:
        raise ValueError(f"batch_size {batch_size} must be at least 1, seed {seed} at least 0")
    # `seed` through .seed(), which hashes it: .shuffle(seed) would give seed s + 1 the epochs of
    # seed s, one later.
    dataset = grain.MapDataset.source(prompts).seed(seed).shuffle().repeat()
    dataset = dataset.batch(batch_size, batch_fn=list)
    # The prompts lie in memory: reading ahead would cost threads and win nothing.
    return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)))
