"""The slots of the decoding loop: which request each one decodes, and its keys and values.

If there is a slot for every request, all are decoded at the same time. On a CPU the keys and values
of a prompt are then stored and read once for its group. With fewer slots requests wait: when a
response ends, its slot takes the next request and copies the keys and values of its prompt.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from asyppo_jax.models.attention.decode_attention import Cache, DecodeBackend
from asyppo_jax.models.attention.decode_blocks import SharedPromptCache, share_prompts
from asyppo_jax.runtime.sharding import max_over_data_shards


class Requests(NamedTuple):
    """The B responses that one shard has to sample; constant while they are decoded."""

    keys: Key[Array, " B"]
    limits: Int[Array, " B"]  # maximum number of completion tokens, 1 … C
    prompt_lengths: Int[Array, " N"]
    ends_at_once: Bool[Array, " B"]  # its first token, drawn before the loop, is its last
    stop_table: Int[Array, "states V"] | None
    prompts: Cache | None  # keys and values that a slot copies; None: no request waits


class DecodedAnswers(NamedTuple):
    """What has been sampled so far, by request."""

    tokens: Int[Array, "B C"]
    log_probs: Float[Array, "B C"]
    sampled_log_probs: Float[Array, "B C"] | None
    entropy: Float[Array, "B C"] | None
    lengths: Int[Array, " B"]
    stop_states: Int[Array, " B"]


class Slots(NamedTuple):
    """The state of the R slots."""

    request: Int[Array, " R"]  # B: the slot is free
    token: Int[Array, " R"]  # the last one drawn, not in the cache yet
    length: Int[Array, " R"]  # tokens in the cache and in a shared prompt; 0: the slot is free
    cache: Cache
    shared: SharedPromptCache | None

    def in_cache(self) -> Int[Array, " R"]:
        """The number of tokens in each row of the cache."""
        return self.length if self.shared is None else self.shared.in_cache(self.length)


class DecodeState(NamedTuple):
    """The carry of the decoding loop."""

    next: Int[Array, ""]  # the next request to be given a slot
    slots: Slots
    answers: DecodedAnswers


def start_full(
    backend: DecodeBackend, kv: tuple[Array, Array], requests: Requests, answers: DecodedAnswers
) -> DecodeState:
    """The state with every request in a slot; on a CPU the slots of a group share its prompt.

    Only for `per_layer` backends, because XLA then writes the prompts' copies in place.
    """
    batch, lengths = answers.tokens.shape[0], requests.prompt_lengths
    width, completion = kv[0].shape[2], answers.tokens.shape[1]
    group = batch // len(lengths)
    if backend.for_small_batch and group > 1:
        longest = max_over_data_shards(jnp.max(lengths))
        shared = share_prompts(*kv, lengths, longest, group)
        cache = _empty(backend, kv[0], batch, completion)
    else:
        keys, values = (jnp.repeat(x, group, axis=1) for x in kv)
        shared, cache = None, backend.make(keys, values, width + completion)
    slots = Slots(
        request=jnp.where(requests.ends_at_once, batch, jnp.arange(batch)),
        token=answers.tokens[:, 0],
        length=jnp.where(requests.ends_at_once, 0, jnp.repeat(lengths, group)),
        cache=cache,
        shared=shared,
    )
    return DecodeState(jnp.int32(batch), slots, answers)


def start_empty(
    backend: DecodeBackend,
    keys: Float[Array, "L N P KV d"],
    requests: Requests,
    answers: DecodedAnswers,
    count: int,
    length: int,
) -> DecodeState:
    """The state with `count` free slots of `length` positions; `keys` has the cache's other sizes.

    The loop fills them as it refills slots, so it needs no second copy of the prompts.
    """
    free = Slots(
        request=jnp.full(count, requests.keys.shape[0], jnp.int32),
        token=jnp.zeros(count, jnp.int32),
        length=jnp.zeros(count, jnp.int32),
        cache=_empty(backend, keys, count, length),
        shared=None,
    )
    return DecodeState(jnp.int32(0), free, answers)


def _empty(
    backend: DecodeBackend, keys: Float[Array, "L N P KV d"], rows: int, length: int
) -> Cache:
    nothing = jnp.zeros((keys.shape[0], rows, 0, *keys.shape[3:]), keys.dtype)
    return backend.make(nothing, nothing, length)


def refill(
    state: DecodeState, requests: Requests, backend: DecodeBackend, group: int
) -> DecodeState:
    """The state after free slots took the next requests, until no slot or request is left."""
    batch, prompts = requests.keys.shape[0], requests.prompts
    if prompts is None:
        return state

    def possible(state: DecodeState):
        return (state.next < batch) & jnp.any(state.slots.request == batch)

    def fill(state: DecodeState) -> DecodeState:
        fills = possible(state)  # false if only another shard has a slot to fill
        request, slots, answers = state
        slot, prompt = jnp.argmax(slots.request == batch), request // group
        ends, length = requests.ends_at_once[request], requests.prompt_lengths[prompt]

        def put(x, new):
            return x.at[slot].set(jnp.where(fills, new, x[slot]))

        slots = slots._replace(
            request=put(slots.request, jnp.where(ends, batch, request)),
            token=put(slots.token, answers.tokens[request, 0]),
            length=put(slots.length, jnp.where(ends, 0, length)),
            cache=backend.copy(slots.cache, slot, prompts, prompt, fills),
        )
        return DecodeState(request + fills, slots, answers)

    with jax.named_scope("refill"):
        return while_any(possible, fill, state)


def compact_slots(backend: DecodeBackend, slots: Slots, size: int) -> Slots:
    """The first `size` of the slots that are not free."""
    rows = jnp.argsort(slots.request)[:size]  # free slots are last
    request, token, length = (x[rows] for x in (slots.request, slots.token, slots.length))
    shared = None if slots.shared is None else slots.shared.of_rows(rows)
    return Slots(request, token, length, backend.take(slots.cache, rows), shared)


def while_any(
    more: Callable[[DecodeState], Array],
    step: Callable[[DecodeState], DecodeState],
    state: DecodeState,
) -> DecodeState:
    """`step` while `more` is true; with a `model` axis, on any shard (`max_over_data_shards`)."""

    def iteration(carry):
        state = step(carry[0])
        return state, max_over_data_shards(more(state))

    first = state, max_over_data_shards(more(state))
    return jax.lax.while_loop(lambda carry: carry[1], iteration, first)[0]
