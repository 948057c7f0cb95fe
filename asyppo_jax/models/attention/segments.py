"""Which tokens of a row see each other: the earlier ones of their own segment, in plain rows and in
rows whose completions share a prompt.
"""

from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Int, Shaped

EVERY = -1  # of a key: seen from every segment


class Branches(struct.PyTreeNode):
    """Segments of rows [P | C | C | …]: a prompt, and behind it `count` branches of C places.

    A branch holds one completion, or several packed ones; its tokens see the prompt and the earlier
    tokens of their own completion. No hidden state of a prompt depends on what follows, nor one of
    a completion on its neighbours, so that such a row gives its sequences' own numbers, and the
    prompt is computed once. Prompts are padded on the left.
    """

    segments: Int[Array, "R T"]  # 0 is padding; 1 a prompt; 1, 2, … the completions of a branch
    prompt: int = struct.field(pytree_node=False)  # P
    count: int = struct.field(pytree_node=False)  # T = P + count · C

    def before(self, x: Shaped[Array, "R T ..."]) -> Shaped[Array, "R n ..."]:
        """Of every token behind the prompt, `x` of the token that comes before it in its sequence.

        Before a completion's first token that is the prompt's last, which lies at P − 1.
        """
        branches = self.queries(self.segments)
        ahead = jnp.pad(branches[:, :-1], ((0, 0), (1, 0)))
        first = (branches != ahead).reshape(x.shape[0], -1, *[1] * (x.ndim - 2))
        return jnp.where(first, x[:, self.prompt - 1 : self.prompt], x[:, self.prompt - 1 : -1])

    def queries(self, x: Shaped[Array, "R T ..."]) -> Shaped[Array, "branches C ..."]:
        """Every branch as a row of its own."""
        return each_branch(x[:, self.prompt :], self.count)

    def keys(self, x: Shaped[Array, "R T ..."]) -> Shaped[Array, "branches S ..."]:
        """Every branch behind its prompt, S = P + C."""
        prompts = jnp.repeat(x[:, : self.prompt], self.count, axis=0)
        return jnp.concatenate([prompts, self.queries(x)], axis=1)

    def key_segments(self) -> Int[Array, "branches S"]:
        """The segments of `keys`: a prompt's real tokens are seen by all that lie behind it."""
        in_prompt = jnp.arange(self.segments.shape[1])[None] < self.prompt
        return self.keys(jnp.where(in_prompt & (self.segments > 0), EVERY, self.segments))


def each_branch(x: Shaped[Array, "R count_C ..."], count: int) -> Shaped[Array, "branches C ..."]:
    """What lies side by side in `count` branches, every branch as a row of its own."""
    return x.reshape(x.shape[0] * count, -1, *x.shape[2:])


# The mask of real tokens is the case of one sequence a row.
Segments: TypeAlias = Int[Array, "B T"] | Bool[Array, "B T"] | Branches


def positions_of(segments: Segments) -> Int[Array, "B T"]:
    """0, 1, … from the first token of every segment on; segments lie in one piece, padding is 0.

    Behind a shared prompt a completion counts on from the prompt's length.
    """
    if not isinstance(segments, Branches):
        return _places(segments)
    prompts, branches = segments.segments[:, : segments.prompt], segments.queries(segments.segments)
    lengths = jnp.sum(prompts > 0, axis=1, dtype=jnp.int32)
    behind = _places(branches).reshape(len(lengths), -1) + lengths[:, None]
    behind = jnp.where(segments.segments[:, segments.prompt :] > 0, behind, 0)
    return jnp.concatenate([_places(prompts), behind], axis=1)


@jax.custom_vjp
def turn(x: Shaped[Array, "B T ..."], places: Int[Array, " B"]) -> Shaped[Array, "B T ..."]:
    """Each row from entry `places` on, what lies before that behind its end.

    The way back is a turn, too: autodiff's would add the entries up one by one.
    """
    index = (jnp.arange(x.shape[1])[None] + places[:, None]) % x.shape[1]
    return jnp.take_along_axis(x, index.reshape(*index.shape, *[1] * (x.ndim - 2)), axis=1)


turn.defvjp(
    lambda x, places: (turn(x, places), places),
    lambda places, by_out: (turn(by_out, -places), None),
)


def _places(segments: Any) -> Int[Array, "B T"]:
    places = jnp.arange(segments.shape[-1], dtype=jnp.int32)[None]
    before = jnp.pad(segments[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
    starts = jax.lax.cummax(jnp.where(segments != before, places, 0), axis=1)
    return jnp.where(segments > 0, places - starts, 0)


def visible(segments: Int[Array, "B t"], keys: Int[Array, "B S"]) -> Bool[Array, "B t S"]:
    """Which keys the last t of S tokens see: those up to themselves of their segment or of EVERY.

    `segments` are theirs, `keys` those of all tokens.
    """
    length, size = segments.shape[1], keys.shape[1]
    earlier = jnp.arange(size)[None] <= jnp.arange(size - length, size)[:, None]
    same = segments[:, :, None] == keys[:, None, :]
    return earlier[None] & (same | (keys == EVERY)[:, None, :])
