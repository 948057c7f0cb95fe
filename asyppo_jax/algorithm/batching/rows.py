"""Rows of tokens, with the per-token arrays that the updates need."""

from typing import Any, TypeVar

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float

from asyppo_jax.config import ConfigError, ValueConfig
from asyppo_jax.ops.aggregation import Aggregation, length_normalizer
from asyppo_jax.ops.checks import check_arrays
from asyppo_jax.types import Experience, Rollout


class Rows(struct.PyTreeNode):
    """R rows of L tokens, and arrays for the last n tokens of each row (subclasses add more).

    With one sequence per row, n = C, its completion. In packed rows n = L − 1, because the first
    token of a row begins a prompt. In rows that start with a shared prompt of P tokens, n = L − P.
    In rows of completions without prompts, n = L. The real tokens of a sequence are contiguous.
    """

    tokens: Array  # [R, L] int32
    # [R, L] int32: 0 on padding, a different positive number for each sequence of the row.
    # `SharedPrompts` (which contains such an array) if completions share their prompt.
    segments: Any
    # [R, n] bool, the completion tokens that count. In the updates (`UpdateRows`) it is the loss
    # mask, which is false in answers without a valid reward. Where values, or the log-probs of a
    # saved rollout, are computed it is the completion mask: all real tokens.
    mask: Array


AnyRows = TypeVar("AnyRows", bound=Rows)


class UpdateRows(Rows):
    """What an update reads of an experience; `mask` is its loss mask, or the actor's mask."""

    old_log_probs: Array  # [R, n]
    advantages: Array  # [R, n]
    returns: Array  # [R, n]
    length_normalizer: Array  # [R, n], n_{i,t} of `ops.aggregation`: 1/|o|, 1 or 1/C
    advantage_mask: Array  # [R, n]
    entropy_mask: Array  # [R, n]
    reference_log_probs: Array | None = None  # [R, n]; None with `kl_coef` = 0
    # [R, n], 1 / (number of tokens of right answers in the minibatch) on those tokens, 0 on others;
    # None with `positive_nll_coef` = 0
    positive_weights: Array | None = None
    # For the critics, where an option of `config.value` needs them; all [R, n].
    anchor: Array | None = None  # added to a critic's output: head⁻¹ of the anchor
    value_weights: Array | None = None  # of the loss per token
    old_values: Array | None = None  # of the critic that the rows belong to


def update_rows(
    experience: Experience, aggregation: Aggregation, mask: Array | None = None
) -> UpdateRows:
    """The sequences of an experience, one per row; old log-probs are those of the rollout.

    `mask` [B, C] says which tokens count; None: all of the loss mask.
    """
    rollout, mask = experience.rollout, experience.loss_mask if mask is None else mask
    return UpdateRows(
        tokens=rollout.tokens,
        segments=sequence_segments(rollout),
        mask=mask,
        old_log_probs=rollout.log_probs,
        advantages=experience.advantages,
        returns=experience.returns,
        length_normalizer=length_normalizer(mask, aggregation),
        advantage_mask=experience.advantage_mask,
        entropy_mask=experience.entropy_mask,
        reference_log_probs=experience.reference_log_probs,
    )


@check_arrays
def loss_rows(
    old_log_probs: Float[Array, "R n"],
    advantages: Float[Array, "R n"],
    mask: Bool[Array, "R n"],
    advantage_mask: Bool[Array, "R n"] | None = None,
    entropy_mask: Bool[Array, "R n"] | None = None,
) -> UpdateRows:
    """The `rows` of R answers, one per row, to try a loss of your own on arrays.

    Without the last two masks every real token is kept. Tokens and returns are 0, and the arrays of
    options that are off, such as `reference_log_probs`, are None; to set others, use
    `rows.replace(reference_log_probs=...)`.

    Raises:
        ValueError: the shapes differ.
    """
    return UpdateRows(
        tokens=jnp.zeros_like(mask, jnp.int32),
        segments=mask.astype(jnp.int32),
        mask=mask,
        old_log_probs=old_log_probs,
        advantages=advantages,
        returns=jnp.zeros_like(advantages),
        length_normalizer=length_normalizer(mask, "sequence"),
        advantage_mask=mask if advantage_mask is None else advantage_mask,
        entropy_mask=mask if entropy_mask is None else entropy_mask,
    )


def as_critics_read(rollout: Rollout, config: ValueConfig) -> Rollout:
    """The rollout with the prompts that the critics read: with `reference_answer` their own.

    Rows [reference | prompt | completion] in place of [prompt | completion]; completions, and so
    all arrays per token, stay as they are.

    Raises:
        ConfigError: the critics read the reference answer, and the rollout does not have it.
    """
    if not config.reference_answer:
        return rollout
    if rollout.critic_prompt is None or rollout.critic_prompt_mask is None:
        raise ConfigError(
            "the critics read reference answers (config.value.reference_answer is "
            f"{config.reference_answer!r}), but this rollout has none; sample it with a sampler of "
            "that reference_length, or set its critic_prompt and critic_prompt_mask"
        )
    completions = rollout.tokens[:, -rollout.completion_mask.shape[1] :]
    return rollout.replace(
        tokens=jnp.concatenate([rollout.critic_prompt, completions], axis=1),
        prompt_mask=rollout.critic_prompt_mask,
    )


def sequence_segments(rollout: Rollout) -> Array:
    """1 on the real tokens of prompt and completion, 0 on padding [B, T]."""
    mask = jnp.concatenate([rollout.prompt_mask, rollout.completion_mask], axis=1)
    return mask.astype(jnp.int32)
