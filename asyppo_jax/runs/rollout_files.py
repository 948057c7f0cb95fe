"""Files of saved rollouts: one JSON line per answer, with per-token values, masks and so on.

`save_rollouts` and `save_heldout` write them during training, `experiments.inspect` shows them, and
`read_rollout_file` reads them in a notebook. The fields of a line are those of `SavedAnswer`; NaN
is null.
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
    Tokenizer = Any  # so that reading a file does not import JAX

_CHARACTER_BYTES = 4  # a UTF-8 character has at most 4 bytes, so at most 4 tokens
_DIGITS = 6  # decimals of a number in a file


class RolloutFileError(UserError, ValueError):
    """A file of saved rollouts that cannot be read; the message says where and how to fix it."""


@dataclass(frozen=True)
class SavedAnswer:
    """One answer of a rollout; each list has one entry per real completion token (n in total).

    No step trains on a held-out answer, so its advantages, returns and masks are empty lists.
    """

    step: int  # the step that trains on it, from 1; held out: the steps finished before it, from 0
    group: int  # index of its prompt within the step, or among the held-out prompts, from 0
    problem: str
    prompt: str  # input of the actor, without special tokens
    reference: str  # the record's answer
    reward: float | None  # None: it could not be scored and is not used in the step
    truncated: bool  # no stop token within the maximum length
    critic: int | None  # index of the critic that learns from it, from 0; None: no critic does
    tokens: list[int]
    token_texts: list[str]  # joined, they give the completion with special tokens
    old_log_probs: list[float | None]  # from the sampler, nats
    log_probs: list[float | None]  # from the learner with the same weights, nats
    entropy: list[float | None]  # of the actor's next-token distribution, nats
    values: list[list[float | None]]  # [K][n], V_k(s_t) before the step's updates
    value_std: list[float | None]
    advantages: list[float | None]
    returns: list[float | None]
    advantage_mask: list[bool]  # false: masked out of the policy loss
    entropy_mask: list[bool]  # false: masked out of the entropy bonus
    held_out: bool = False  # an answer of an evaluation; absent in files of earlier versions


_FIELDS = tuple(f.name for f in dataclasses.fields(SavedAnswer))
_REQUIRED = frozenset(_FIELDS) - {"held_out"}
_OF_TRAINING = ("advantages", "returns", "advantage_mask", "entropy_mask")
_PER_TOKEN = tuple(f.name for f in dataclasses.fields(SavedAnswer) if "list" in str(f.type))


def token_texts(tokenizer: Tokenizer, tokens: Sequence[int]) -> list[str]:
    """The text that each token adds; joined, they give the text of all tokens.

    A single token cannot always be decoded: a character may span several tokens (bytes), and a
    leading space may depend on the previous token (SentencePiece). So a token is decoded together
    with the last token that ended a character. A token that ends inside a character adds "", and
    the token that completes the character adds all of it.
    """
    texts: list[str] = []
    # Position of the last token that ended a character, and of the first token without text.
    context, pending = 0, 0

    def decode(ids: Sequence[int]) -> str:
        return str(
            tokenizer.decode(
                list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )

    for end in range(1, len(tokens) + 1):
        text = decode(tokens[context:end])
        incomplete = text.endswith("\N{REPLACEMENT CHARACTER}") and end - pending < _CHARACTER_BYTES
        if incomplete and end < len(tokens):
            texts.append("")
            continue
        texts.append(text[len(decode(tokens[context:pending])) :])
        context, pending = pending, end
    return texts


def write_rollout_file(path: epath.PathLike, answers: Sequence[SavedAnswer]) -> None:
    """Writes a file of answers atomically; numbers are rounded to six decimals."""
    lines = [json.dumps(_as_json(dataclasses.asdict(answer))) for answer in answers]
    file = epath.Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, "".join(f"{line}\n" for line in lines).encode())


def _as_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _as_json(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_as_json(entry) for entry in value]
    if isinstance(value, float):
        return round(value, _DIGITS) if math.isfinite(value) else None
    return value


def read_rollout_file(path: epath.PathLike) -> list[SavedAnswer]:
    """The answers of a file, in the order of its lines.

    Raises:
        RolloutFileError: the file does not exist, or a line is not a saved answer.
    """
    file = epath.Path(path)
    if not file.is_file():
        raise RolloutFileError(
            f"{path} does not exist; a run with config.log.rollouts_every = n writes "
            "rollouts/step_*.jsonl into its workdir, and one with config.log.heldout_prompts = n "
            "writes rollouts/heldout_*.jsonl"
        )
    lines = file.read_bytes().splitlines()
    answers = [_read_line(line, f"{path}, line {i}") for i, line in enumerate(lines, start=1)]
    if not answers:
        raise RolloutFileError(f"{path} is empty; give a file written by a run")
    return answers


def _read_line(line: bytes, where: str) -> SavedAnswer:
    fix = "give a file written by a run (config.log.rollouts_every or heldout_prompts)"
    try:
        values = json.loads(line)
    except ValueError as error:
        raise RolloutFileError(f"{where}, is not JSON ({error}); {fix}") from error
    fields = values.keys() if isinstance(values, dict) else set()
    if wrong := sorted((_REQUIRED - fields) | (fields - set(_FIELDS))):
        problem = "lacks" if wrong[0] in _FIELDS else "has an unknown"
        raise RolloutFileError(f"{where}, {problem} field {wrong[0]!r}; {fix}")
    empty = _OF_TRAINING if values.get("held_out") else ()
    lists = {name: values[name] for name in _PER_TOKEN if values[name] or name not in empty}
    del lists["values"]  # one list per critic
    lists |= {f"values[{k}]": of_critic for k, of_critic in enumerate(values["values"])}
    count = len(values["tokens"])
    for name, entries in lists.items():
        if len(entries) != count:
            raise RolloutFileError(f"{where}, has {len(entries)} {name} for {count} tokens; {fix}")
    return SavedAnswer(**values)
