"""Tokens in rows, and what the updates read beside them."""

from typing import Any, TypeVar

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array

from asyppo_jax.ops.masked import sequence_weights
from asyppo_jax.types import Experience, Rollout


class Rows(struct.PyTreeNode):
    """Tokens in rows, and arrays that speak of the last n tokens of each row (subclasses add some).

    One sequence a row: n = C, the completion. Packed: n = L − 1, because the first token of a row
    opens a prompt. The real tokens of a sequence lie in one piece. Behind a shared prompt of P
    tokens: n = L − P. Of completions alone: n = L.
    """

    tokens: Array  # [R, L] int32
    # [R, L] int32, 0 on padding; positive and different for the row's sequences. `Branches` of them
    # where sequences share their prompt.
    segments: Any
    mask: Array  # [R, n] bool, the completion tokens that count


AnyRows = TypeVar("AnyRows", bound=Rows)


class UpdateRows(Rows):
    """What the updates read of an experience; `mask` is its loss mask."""

    old_log_probs: Array  # [R, n]
    advantages: Array  # [R, n]
    returns: Array  # [R, n]
    weights: Array  # [R, n], 1/|o| of the token's sequence
    advantage_mask: Array  # [R, n]
    entropy_mask: Array  # [R, n]


def update_rows(experience: Experience) -> UpdateRows:
    """The rows of an experience; old log-probs are those of the rollout."""
    rollout, mask = experience.rollout, experience.loss_mask
    return UpdateRows(
        tokens=rollout.tokens,
        segments=sequence_segments(rollout),
        mask=mask,
        old_log_probs=rollout.log_probs,
        advantages=experience.advantages,
        returns=experience.returns,
        weights=sequence_weights(mask),
        advantage_mask=experience.advantage_mask,
        entropy_mask=experience.entropy_mask,
    )


def sequence_segments(rollout: Rollout) -> Array:
    """1 on the real tokens of prompt and completion, 0 on padding [B, T]."""
    mask = jnp.concatenate([rollout.prompt_mask, rollout.completion_mask], axis=1)
    return mask.astype(jnp.int32)
