"""The slots of the decoding loop: which request each decodes, and where its keys and values lie.

With a slot for every request all are decoded at one time, on a CPU and a GPU from the start; on a
CPU a prompt's keys and values are then held, and read, once for its whole group. With fewer slots
the requests wait; as an answer ends, its slot takes the next one by copying that one's prompt.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from asyppo_jax.models.attention.decode_attention import (
    Cache,
    Form,
    copy_row,
    make_cache,
    take_rows,
)
from asyppo_jax.models.attention.decode_blocks import SharedPrompts, share_prompts
from asyppo_jax.runtime.sharding import largest_of_shards


class Requests(NamedTuple):
    """Everything that the B responses of one shard ask for; constant while they are decoded."""

    keys: Key[Array, " B"]
    limits: Int[Array, " B"]  # completion tokens at the most, 1 … C
    prompt_lengths: Int[Array, " N"]
    over: Bool[Array, " B"]  # ended by its first token, drawn before the loop
    stop_table: Int[Array, "states V"] | None
    waiting: Cache | None  # the prompts' keys and values that a slot copies; None: nobody waits


class Answers(NamedTuple):
    """What has been sampled so far, by request."""

    tokens: Int[Array, "B C"]
    log_probs: Float[Array, "B C"]
    sampled_log_probs: Float[Array, "B C"] | None
    lengths: Int[Array, " B"]
    stop_states: Int[Array, " B"]


class Slots(NamedTuple):
    """What the R slots are at."""

    request: Int[Array, " R"]  # B: none, the slot is free
    token: Int[Array, " R"]  # the last one drawn, not in the cache yet
    length: Int[Array, " R"]  # tokens in the cache, and in the prompt if it is shared; 0 if free
    cache: Cache
    shared: SharedPrompts | None

    def held(self) -> Int[Array, " R"]:
        """The tokens that each row of the cache holds."""
        return self.length if self.shared is None else self.length - self.shared.seating.starts


class Progress(NamedTuple):
    """The carry of the loop."""

    next: Int[Array, ""]  # the request that is served next
    slots: Slots
    answers: Answers


def all_at_once(
    form: Form, kept: tuple[Array, Array], requests: Requests, answers: Answers
) -> Progress:
    """Every request in a slot of its own; with "blocks" the slots of a group share its prompt.

    For forms whose layers have arrays of their own, into which XLA writes the prompts' copies.
    """
    batch, lengths = answers.tokens.shape[0], requests.prompt_lengths
    width, completion = kept[0].shape[2], answers.tokens.shape[1]
    group = batch // len(lengths)
    if form != "blocks" or group == 1:
        keys, values = (jnp.repeat(x, group, axis=1) for x in kept)
        shared, cache = None, make_cache(form, keys, values, width + completion)
    else:
        longest = largest_of_shards(jnp.max(lengths))
        shared = share_prompts(*kept, lengths, longest, group)
        cache = _empty("blocks", kept[0], batch, completion)
    slots = Slots(
        request=jnp.where(requests.over, batch, jnp.arange(batch)),
        token=answers.tokens[:, 0],
        length=jnp.where(requests.over, 0, jnp.repeat(lengths, group)),
        cache=cache,
        shared=shared,
    )
    return Progress(jnp.int32(batch), slots, answers)


def in_turn(
    form: Form, kept: Array, requests: Requests, answers: Answers, count: int, length: int
) -> Progress:
    """`count` free slots of `length` places.

    Free at first: the loop's own refilling puts the first requests in, and no second copy of their
    prompts waits beside the cache.
    """
    free = Slots(
        request=jnp.full(count, requests.keys.shape[0], jnp.int32),
        token=jnp.zeros(count, jnp.int32),
        length=jnp.zeros(count, jnp.int32),
        cache=_empty(form, kept, count, length),
        shared=None,
    )
    return Progress(jnp.int32(0), free, answers)


def _empty(form: Form, like: Float[Array, "L N P KV d"], rows: int, length: int) -> Cache:
    none = jnp.zeros((like.shape[0], rows, 0, *like.shape[3:]), like.dtype)
    return make_cache(form, none, none, length)


def refill(progress: Progress, requests: Requests, form: Form, group: int) -> Progress:
    """Gives free slots the next requests, one a turn, until none is free or none waits."""
    batch, waiting = requests.keys.shape[0], requests.waiting
    if waiting is None:
        return progress

    def possible(progress: Progress):
        return (progress.next < batch) & jnp.any(progress.slots.request == batch)

    def fill(progress: Progress) -> Progress:
        real = possible(progress)  # not where only another shard has something to fill
        request, slots, answers = progress
        slot, prompt = jnp.argmax(slots.request == batch), request // group
        over, length = requests.over[request], requests.prompt_lengths[prompt]

        def put(x, new):
            return x.at[slot].set(jnp.where(real, new, x[slot]))

        slots = slots._replace(
            request=put(slots.request, jnp.where(over, batch, request)),
            token=put(slots.token, answers.tokens[request, 0]),
            length=put(slots.length, jnp.where(over, 0, length)),
            cache=copy_row(form, slots.cache, slot, waiting, prompt, real),
        )
        return Progress(request + real, slots, answers)

    with jax.named_scope("refill"):
        return while_any(possible, fill, progress)


def fewer(form: Form, slots: Slots, size: int) -> Slots:
    """The first `size` slots of those that are not free."""
    rows = jnp.argsort(slots.request)[:size]  # free slots are last
    request, token, length = (x[rows] for x in (slots.request, slots.token, slots.length))
    shared = None if slots.shared is None else slots.shared.of_rows(rows)
    return Slots(request, token, length, take_rows(form, slots.cache, rows), shared)


def while_any(
    more: Callable[[Progress], Array], step: Callable[[Progress], Progress], progress: Progress
) -> Progress:
    """`step` while there is more on any shard: as many turns on each of them."""

    def turn(carry):
        progress = step(carry[0])
        return progress, largest_of_shards(more(progress))

    first = progress, largest_of_shards(more(progress))
    return jax.lax.while_loop(lambda carry: carry[1], turn, first)[0]
