"""The decoding engine: a fixed number of slots, refilled as answers end, all in one program.

Each prompt is prefilled once. A slot decodes one response (a request) at a time. When it ends, the
slot copies the keys and values of the next request's prompt. On a CPU every row costs time, so when
no request waits any more, decoding continues in smaller programs as responses end. The noise of
token t of response b depends on the key, b and t alone, not on slots or devices.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray

from asyppo_jax.models.actor_critic import Networks, actor_shapes, in_compute_dtype
from asyppo_jax.runtime.sharding import gather_params, map_data_shards, max_over_data_shards
from asyppo_jax.sampling.draw import DecodingOptions, Draw, draw
from asyppo_jax.sampling.prefill import prefill
from asyppo_jax.sampling.slots import (
    DecodedAnswers,
    DecodeState,
    Requests,
    compact_slots,
    refill,
    start_empty,
    start_full,
    while_any,
)
from asyppo_jax.types import Params, PromptBatch, Rollout

# Limits below which a smaller program would cost more compile time than it saves.
_MIN_SLOTS = 16  # its rows
_MIN_SAVED = 8  # rows fewer than in the program before
_MIN_TOKENS = 16  # tokens of the longest answer per program


def sample(
    params: Params,
    prompts: PromptBatch,
    key: PRNGKeyArray,
    *,
    networks: Networks,
    options: DecodingOptions,
    first_row: Int[Array, ""] | int = 0,
    limits: Int[Array, " B"] | None = None,
    stop_table: Int[Array, "states V"] | None = None,
) -> Rollout:
    """G completions for each of N prompts; the responses of a prompt are neighbours.

    `log_probs` are log π(token) of the plain policy (temperature 1, no truncation). If the prompts
    are a chunk of a rollout, `first_row` is the index of their first response in that rollout; the
    tokens do not depend on the division into chunks. `limits` is the maximum number of tokens of
    each response, 1 … C. `stop_table` has the stop strings (see `make_stop_table`). All rewards are
    0 and invalid until they are replaced.

    On a mesh each data shard samples its own prompts from its own queue, if the number of prompts
    is a multiple of the number of data shards.
    """
    batch = prompts.tokens.shape[0] * options.group_size
    params = decoding_params(params, networks)
    row_keys = jax.vmap(jax.random.fold_in, (None, 0))(key, first_row + jnp.arange(batch))
    if limits is None:
        limits = jnp.full(batch, options.max_completion_length, jnp.int32)
    limits = jnp.clip(limits, 1, options.max_completion_length)

    def on_shard(replicated, *rows):
        # Each shard has its share of the slots.
        slots = -(-(options.slots or batch) * len(rows[-1]) // batch)
        return _sample_shard(*replicated, *rows, networks=networks, options=options, slots=slots)

    run = map_data_shards(on_shard, prompts.tokens.shape[0])
    return run((params, stop_table), prompts, row_keys, limits)


def decoding_params(params: Params, networks: Networks) -> Params:
    """The parameters as the decoding loop reads them.

    Cast to the compute dtype and all-gathered over `data`, once per rollout and not once per token.
    """
    params = in_compute_dtype(params, networks.actor.dtype)
    return gather_params(params, actor_shapes(networks.actor))


def _sample_shard(
    params: Params,
    stop_table: Int[Array, "states V"] | None,
    prompts: PromptBatch,
    row_keys: Key[Array, " B"],
    limits: Int[Array, " B"],
    *,
    networks: Networks,
    options: DecodingOptions,
    slots: int,
) -> Rollout:
    """The rollout of one shard's prompts."""
    lengths, prompt_logits, kv = prefill(params, prompts, networks)
    backend, batch = networks.actor.decode, row_keys.shape[0]
    width = prompts.tokens.shape[1]
    length = width + options.max_completion_length
    answers = _first_tokens(prompt_logits, row_keys, stop_table, options)
    first = answers.tokens[:, 0]
    ends = _ends(first, answers.lengths >= limits, answers.stop_states, stop_table, options)
    requests = Requests(row_keys, limits, lengths, ends, stop_table, None)
    if backend.per_layer and slots >= batch:
        state = start_full(backend, kv, requests, answers)
    else:
        requests = requests._replace(prompts=backend.make(*kv, length, allocate=width))
        state = start_empty(backend, kv[0], requests, answers, min(slots, batch), length)
    answers = _decode(networks.step_params(params, length), state, requests, networks, options)
    return _to_rollout(prompts, answers, options)


def _first_tokens(
    prompt_logits: Float[Array, "N V"],
    row_keys: Key[Array, " B"],
    stop_table: Int[Array, "states V"] | None,
    options: DecodingOptions,
) -> DecodedAnswers:
    """Token 0 of every request, drawn from the logits of its prompt.

    One response of every group per iteration, so that at most [N, V] probabilities are in memory.
    """
    group = options.group_size
    keys = row_keys.reshape(-1, group).T
    drawn = jax.lax.map(lambda k: draw(prompt_logits, _uniform(k, 0), options), keys)
    drawn = jax.tree.map(lambda x: x.T.reshape(-1), drawn)
    batch, room = len(drawn.token), (0, options.max_completion_length - 1)
    tokens = jnp.pad(drawn.token[:, None], ((0, 0), room), constant_values=options.pad_id)
    padded = jax.tree.map(lambda x: jnp.pad(x[:, None], ((0, 0), room)), drawn)
    states = jnp.zeros(batch, jnp.int32)
    if stop_table is not None:
        states = stop_table[states, drawn.token]
    return DecodedAnswers(
        tokens=tokens,
        log_probs=padded.log_prob,
        sampled_log_probs=padded.sampled_log_prob if options.sampled_log_probs else None,
        entropy=padded.entropy,
        lengths=jnp.ones(batch, jnp.int32),
        stop_states=states,
    )


def _uniform(keys: Key[Array, " B"], t: Int[Array, " B"] | int) -> Float[Array, " B"]:
    """The noise of token t of each row, uniform in [0, 1)."""
    at = jnp.broadcast_to(t, keys.shape)
    return jax.vmap(lambda k, i: jax.random.uniform(jax.random.fold_in(k, i)))(keys, at)


def _ends(
    token: Int[Array, " B"],
    at_limit: Bool[Array, " B"],
    stop_state: Int[Array, " B"],
    stop_table: Int[Array, "states V"] | None,
    options: DecodingOptions,
) -> Bool[Array, " B"]:
    """Whether each token is the last one of its answer."""
    ends = at_limit | is_stop(token, options.stop_ids)
    if stop_table is not None:
        ends |= stop_state == stop_table.shape[0] - 1
    return ends


def is_stop(tokens: Int[Array, " B"], stop_ids: tuple[int, ...]) -> Bool[Array, " B"]:
    """Whether each token is one of the stop tokens."""
    stops = jnp.asarray(stop_ids, jnp.int32)
    return jnp.any(tokens[:, None] == stops[None, :], axis=-1)


def _decode(
    params: Params,
    state: DecodeState,
    requests: Requests,
    networks: Networks,
    options: DecodingOptions,
) -> DecodedAnswers:
    """All answers, after the decoding loop; it continues in smaller programs (`_program_sizes`)."""
    batch, backend = requests.keys.shape[0], networks.actor.decode
    step = partial(_step, params, networks=networks, options=options)
    sizes = [state.slots.request.shape[0]]
    if backend.for_small_batch:  # elsewhere a token takes as long with fewer rows
        sizes = _program_sizes(sizes[0], options.max_completion_length)
    for i, smaller in enumerate([*sizes[1:], 0]):

        def has_more(state: DecodeState, smaller=smaller):
            live = jnp.sum(state.slots.request < batch)
            return (state.next < batch) | (live > smaller)

        with jax.named_scope("decode_tail" if i else "decode"):
            state = while_any(has_more, partial(step, requests=requests), state)
        if smaller:
            state = state._replace(slots=compact_slots(backend, state.slots, smaller))
            requests = requests._replace(prompts=None)
    return state.answers


def _program_sizes(slots: int, completion: int) -> list[int]:
    """The number of rows of each program, descending: `slots`, then powers of two and 3/4 of them.

    If answers are short, some sizes are left out, so that every program has tokens to decode.
    """
    sizes = [slots]
    while smaller := _next_size(sizes[-1]):
        sizes.append(smaller)
    most = max(1, completion // _MIN_TOKENS)
    return sizes[:: -(-len(sizes) // most)]


def _next_size(size: int) -> int:
    power = 2 ** (size.bit_length() - 1)
    sizes = (x for x in (power, power // 4 * 3, power // 2) if size - x >= _MIN_SAVED)
    return next((x for x in sizes if x >= _MIN_SLOTS), 0)


def _step(
    params: Params,
    state: DecodeState,
    *,
    requests: Requests,
    networks: Networks,
    options: DecodingOptions,
) -> DecodeState:
    """Refills free slots, then samples one more token of every request in a slot."""
    batch = requests.keys.shape[0]
    backend, group = networks.actor.decode, options.group_size
    next_request, slots, answers = refill(state, requests, backend, group)
    request, live = slots.request, slots.request < batch
    longest = max_over_data_shards(jnp.max(slots.in_cache()))
    logits, cache = networks.actor_step(
        params, slots.token, slots.length, longest, slots.cache, slots.shared
    )
    t = answers.lengths[request]
    drawn: Draw = draw(logits, _uniform(requests.keys[request], t), options)
    stop_state = answers.stop_states[request]
    if requests.stop_table is not None:
        stop_state = requests.stop_table[stop_state, drawn.token]
    at_limit = t + 1 >= requests.limits[request]
    ends = _ends(drawn.token, at_limit, stop_state, requests.stop_table, options)
    # The request of a free slot is out of range, so its writes are dropped.
    answers = DecodedAnswers(
        tokens=answers.tokens.at[request, t].set(drawn.token, mode="drop"),
        log_probs=answers.log_probs.at[request, t].set(drawn.log_prob, mode="drop"),
        sampled_log_probs=None
        if answers.sampled_log_probs is None
        else answers.sampled_log_probs.at[request, t].set(drawn.sampled_log_prob, mode="drop"),
        entropy=None
        if answers.entropy is None
        else answers.entropy.at[request, t].set(drawn.entropy, mode="drop"),
        lengths=answers.lengths.at[request].set(t + 1, mode="drop"),
        stop_states=answers.stop_states.at[request].set(stop_state, mode="drop"),
    )
    continues = live & ~ends
    slots = slots._replace(
        request=jnp.where(continues, request, batch),
        token=drawn.token,
        length=jnp.where(continues, slots.length + 1, 0),
        cache=cache,
    )
    return DecodeState(next_request, slots, answers)


def _to_rollout(prompts: PromptBatch, answers: DecodedAnswers, options: DecodingOptions) -> Rollout:
    batch, length = answers.tokens.shape
    prompt_tokens, prompt_mask = (
        jnp.repeat(x, options.group_size, axis=0) for x in (prompts.tokens, prompts.mask)
    )
    return Rollout(
        tokens=jnp.concatenate([prompt_tokens, answers.tokens], axis=1),
        prompt_mask=prompt_mask,
        completion_mask=jnp.arange(length)[None] < answers.lengths[:, None],
        log_probs=answers.log_probs,
        rewards=jnp.zeros(batch, jnp.float32),
        reward_valid=jnp.zeros(batch, bool),
        sampled_log_probs=answers.sampled_log_probs,
        entropy=answers.entropy,
    )
