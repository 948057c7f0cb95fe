"""Saved rollouts: files of one JSON line an answer, with what its step made of each token.

`inspection` writes them during training, `experiments.inspect` shows them, and `read_rollout_file`
gives them back to a notebook. The fields of a line are those of `SavedAnswer`; NaN is null.
"""

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from etils import epath

from asyppo_jax.config import UserError
from asyppo_jax.runtime.paths import write_whole

if TYPE_CHECKING:
    from asyppo_jax.tasks.tokenizers import Tokenizer
else:
    Tokenizer = Any  # whoever reads a file needs no JAX

_CHARACTER_BYTES = 4  # of UTF-8, at most: the tokens that one character can lie across
_DIGITS = 6  # decimals that are written


class RolloutFileError(UserError, ValueError):
    """A file of saved rollouts that cannot be read; the message names the line and the mend."""


@dataclass(frozen=True)
class SavedAnswer:
    """One answer of a rollout; a list has an entry for each of its n real completion tokens."""

    step: int  # the step that learns from it, from 1
    group: int  # which prompt of the step it answers, from 0
    problem: str
    prompt: str  # what the actor was given, special tokens left out
    reference: str  # the record's answer
    reward: float | None  # None: it could not be scored, and takes no part in the step
    truncated: bool  # no stop token within the length
    critic: int | None  # the one that learns from it; None without critics
    tokens: list[int]
    token_texts: list[str]  # joined, they are the completion, special tokens included
    old_log_probs: list[float | None]  # the sampler's, nats
    log_probs: list[float | None]  # the learner's with the same weights
    entropy: list[float | None]  # of the actor's next-token distribution, nats
    values: list[list[float | None]]  # [K][n], V_k(s_t) before the step's updates
    value_std: list[float | None]
    advantages: list[float | None]
    returns: list[float | None]
    advantage_mask: list[bool]  # false = dropped from the surrogate
    entropy_mask: list[bool]  # false = dropped from the entropy bonus


_FIELDS = tuple(f.name for f in dataclasses.fields(SavedAnswer))
_BY_TOKEN = _FIELDS[_FIELDS.index("token_texts") :]


def token_texts(tokenizer: Tokenizer, tokens: Sequence[int]) -> list[str]:
    """The text that each token adds; joined, they are the text of all of them.

    A token alone has no text where a character lies across several (bytes) or where its first space
    depends on what stands before it (SentencePiece). So a token is decoded after the last one that
    ended a character; one that ends within a character adds nothing, and the next that ends it all.
    """
    texts: list[str] = []
    before, pending = 0, 0  # the last whole token's place, and the first of those without text

    def decode(some: Sequence[int]) -> str:
        return str(
            tokenizer.decode(
                list(some), skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )

    for end in range(1, len(tokens) + 1):
        text = decode(tokens[before:end])
        torn = text.endswith("\N{REPLACEMENT CHARACTER}") and end - pending < _CHARACTER_BYTES
        if torn and end < len(tokens):
            texts.append("")
            continue
        texts.append(text[len(decode(tokens[before:pending])) :])
        before, pending = pending, end
    return texts


def write_rollout_file(path: epath.PathLike, answers: Sequence[SavedAnswer]) -> None:
    """Writes a file of answers whole or not at all; numbers keep six decimals."""
    lines = [json.dumps(_as_json(dataclasses.asdict(answer))) for answer in answers]
    file = epath.Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, "".join(f"{line}\n" for line in lines).encode())


def _as_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _as_json(x) for name, x in value.items()}
    if isinstance(value, list):
        return [_as_json(x) for x in value]
    if isinstance(value, float):
        return round(value, _DIGITS) if math.isfinite(value) else None
    return value


def read_rollout_file(path: epath.PathLike) -> list[SavedAnswer]:
    """The answers of a file, in its order.

    Raises:
        RolloutFileError: there is no such file, or a line of it is no saved answer.
    """
    file = epath.Path(path)
    if not file.is_file():
        raise RolloutFileError(
            f"{path} does not exist; a run with config.log.rollouts_every = n writes "
            "rollouts/step_*.jsonl into its workdir"
        )
    lines = file.read_bytes().splitlines()
    answers = [_read_line(line, f"{path}, line {i}") for i, line in enumerate(lines, start=1)]
    if not answers:
        raise RolloutFileError(f"{path} is empty; give a file that a run wrote")
    return answers


def _read_line(line: bytes, where: str) -> SavedAnswer:
    mend = "give a file as a run writes it (config.log.rollouts_every)"
    try:
        values = json.loads(line)
    except ValueError as error:
        raise RolloutFileError(f"{where}, is not JSON ({error}); {mend}") from error
    if not isinstance(values, dict) or values.keys() != set(_FIELDS):
        found = values.keys() if isinstance(values, dict) else set()
        name = sorted(set(_FIELDS) ^ found)[0]
        problem = "lacks" if name in _FIELDS else "has an unknown"
        raise RolloutFileError(f"{where}, {problem} field {name!r}; {mend}")
    lists = {name: values[name] for name in _BY_TOKEN if name != "values"}
    lists |= {f"values[{k}]": some for k, some in enumerate(values["values"])}
    count = len(values["tokens"])
    for name, some in lists.items():
        if len(some) != count:
            raise RolloutFileError(f"{where}, has {len(some)} {name} for {count} tokens; {mend}")
    return SavedAnswer(**values)
