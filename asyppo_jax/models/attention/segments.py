"""Which tokens attend to which: each token sees the earlier tokens of its own segment.

A row may also have one prompt and several completions that share it (`SharedPrompts`).
"""

from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Int, Shaped

VISIBLE_TO_ALL = -1  # segment of a key that is visible from every segment


class SharedPrompts(struct.PyTreeNode):
    """The segments of rows [P | C | C | …]: one prompt, then `count` continuations of C positions.

    A continuation has one completion or several packed ones. A completion's tokens see the prompt
    and the earlier tokens of the same completion, nothing else. The hidden states are therefore the
    same as if each prompt and completion were a row of its own, but the prompt is computed only
    once. Prompts are padded on the left.
    """

    # 0: padding; in the prompt 1; in each continuation 1, 2, … for its completions
    segments: Int[Array, "R T"]
    prompt_length: int = struct.field(pytree_node=False)  # P
    count: int = struct.field(pytree_node=False)  # T = P + count · C

    def before(self, x: Shaped[Array, "R T ..."]) -> Shaped[Array, "R n ..."]:
        """`x` at the previous token of the same sequence, for every token after the prompt.

        The token before a completion's first token is the prompt's last token, at position P − 1.
        """
        continuations = self.queries(self.segments)
        previous = jnp.pad(continuations[:, :-1], ((0, 0), (1, 0)))
        is_first = (continuations != previous).reshape(x.shape[0], -1, *[1] * (x.ndim - 2))
        last = self.prompt_length - 1
        return jnp.where(is_first, x[:, last : last + 1], x[:, last:-1])

    def queries(self, x: Shaped[Array, "R T ..."]) -> Shaped[Array, "continuations C ..."]:
        """`x` without the prompt, with each continuation as a row of its own."""
        return split_continuations(x[:, self.prompt_length :], self.count)

    def keys(self, x: Shaped[Array, "R T ..."]) -> Shaped[Array, "continuations S ..."]:
        """`x` with each continuation as a row of its own, after a copy of its prompt; S = P + C."""
        prompts = jnp.repeat(x[:, : self.prompt_length], self.count, axis=0)
        return jnp.concatenate([prompts, self.queries(x)], axis=1)

    def key_segments(self) -> Int[Array, "continuations S"]:
        """The segments of `keys`; real prompt tokens have VISIBLE_TO_ALL."""
        in_prompt = jnp.arange(self.segments.shape[1])[None] < self.prompt_length
        return self.keys(jnp.where(in_prompt & (self.segments > 0), VISIBLE_TO_ALL, self.segments))


def split_continuations(
    x: Shaped[Array, "R count_C ..."], count: int
) -> Shaped[Array, "continuations C ..."]:
    """`x`, whose rows are `count` continuations side by side, with one continuation per row."""
    return x.reshape(x.shape[0] * count, -1, *x.shape[2:])


# A bool mask of real tokens is the special case of one sequence per row.
Segments: TypeAlias = Int[Array, "B T"] | Bool[Array, "B T"] | SharedPrompts


def positions_of(segments: Segments) -> Int[Array, "B T"]:
    """The position of each token in its segment: 0, 1, …; padding gets 0.

    The tokens of a segment must be contiguous. The positions of a completion after a shared prompt
    start at the prompt's length.
    """
    if not isinstance(segments, SharedPrompts):
        return _positions(segments)
    prompts, continuations = (
        segments.segments[:, : segments.prompt_length],
        segments.queries(segments.segments),
    )
    prompt_lengths = jnp.sum(prompts > 0, axis=1, dtype=jnp.int32)
    completions = (
        _positions(continuations).reshape(len(prompt_lengths), -1) + prompt_lengths[:, None]
    )
    completions = jnp.where(segments.segments[:, segments.prompt_length :] > 0, completions, 0)
    return jnp.concatenate([_positions(prompts), completions], axis=1)


@jax.custom_vjp
def roll_rows(x: Shaped[Array, "B T ..."], shifts: Int[Array, " B"]) -> Shaped[Array, "B T ..."]:
    """Each row rolled to the left by its own shift; `jnp.roll` has one shift for all rows.

    The gradient is rolled back. Autodiff would use a slow scatter-add instead.
    """
    index = (jnp.arange(x.shape[1])[None] + shifts[:, None]) % x.shape[1]
    return jnp.take_along_axis(x, index.reshape(*index.shape, *[1] * (x.ndim - 2)), axis=1)


roll_rows.defvjp(
    lambda x, shifts: (roll_rows(x, shifts), shifts),
    lambda shifts, grad_out: (roll_rows(grad_out, -shifts), None),
)


def _positions(segments: Any) -> Int[Array, "B T"]:
    index = jnp.arange(segments.shape[-1], dtype=jnp.int32)[None]
    previous = jnp.pad(segments[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
    starts = jax.lax.cummax(jnp.where(segments != previous, index, 0), axis=1)
    return jnp.where(segments > 0, index - starts, 0)


def visible(segments: Int[Array, "B t"], keys: Int[Array, "B S"]) -> Bool[Array, "B t S"]:
    """The attention mask of the last t of S tokens: which of the S keys each of them sees.

    A token sees itself and the earlier tokens of its own segment or of segment VISIBLE_TO_ALL.
    `segments` are the segments of the last t tokens, `keys` those of all S tokens.
    """
    length, size = segments.shape[1], keys.shape[1]
    is_causal = jnp.arange(size)[None] <= jnp.arange(size - length, size)[:, None]
    same_segment = segments[:, :, None] == keys[:, None, :]
    return is_causal[None] & (same_segment | (keys == VISIBLE_TO_ALL)[:, None, :])
