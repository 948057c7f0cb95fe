"""The decoding engine: a fixed number of slots, refilled as answers end, wholly inside one program.

Each prompt is prefilled once. A slot decodes one response (a request) at a time; when that ends,
the slot takes the next waiting one by copying its prompt's keys and values. On a CPU, where every
row costs, the live ones go on in ever smaller programs once nothing waits. The key decides
everything: row b's token t depends on the key, b and t alone, and not on slots or devices.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray

from asyppo_jax.models.actor_critic import Networks, actor_shapes, in_compute_dtype
from asyppo_jax.models.attention.decode_attention import BY_LAYER, make_cache
from asyppo_jax.runtime.sharding import by_data_shard, gather_params, largest_of_shards
from asyppo_jax.sampling.draw import DecodingOptions, Draw, draw
from asyppo_jax.sampling.prefill import prefill
from asyppo_jax.sampling.slots import (
    Answers,
    Progress,
    Requests,
    all_at_once,
    fewer,
    in_turn,
    refill,
    while_any,
)
from asyppo_jax.types import Params, PromptBatch, Rollout

_FEWEST_SLOTS = 16  # a smaller program wins less than its compilation costs
_FEWEST_SPARED = 8  # and so does one of fewer rows less than the one before
_FEWEST_TOKENS = 16  # or one for fewer of an answer's tokens, of the greatest number


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
    """G completions for each of N prompts, the responses of a prompt side by side.

    `log_probs` are the plain policy's log π(token), whatever temperature or truncation drew it.
    Of a rollout that is sampled in parts `first_row` says where this one begins: its tokens are
    those of the same rows sampled together.
    `limits` gives every response its own greatest number of tokens, at least 1 (C bounds all), and
    `stop_table` the stop strings (see `make_stop_table`). Rewards come later: until they are
    replaced, all are 0 and invalid.

    On a mesh each device of `data` samples its own prompts from its own queue, if they can be
    dealt out evenly.
    """
    batch = prompts.tokens.shape[0] * options.group_size
    params = decoding_params(params, networks)
    row_keys = jax.vmap(jax.random.fold_in, (None, 0))(key, first_row + jnp.arange(batch))
    if limits is None:
        limits = jnp.full(batch, options.max_completion_length, jnp.int32)
    limits = jnp.clip(limits, 1, options.max_completion_length)

    def one_shard(whole, *rows):
        # Of all slots each shard has its share.
        slots = -(-(options.slots or batch) * len(rows[-1]) // batch)
        return _sample_shard(*whole, *rows, networks=networks, options=options, slots=slots)

    run = by_data_shard(one_shard, prompts.tokens.shape[0])
    return run((params, stop_table), prompts, row_keys, limits)


def decoding_params(params: Params, networks: Networks) -> Params:
    """The parameters as the decoding loop reads them: in the compute dtype, whole over `data`.

    Both once a rollout instead of once a token.
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
    lengths, prompt_logits, kept = prefill(params, prompts, networks)
    form, batch = networks.actor.decode, row_keys.shape[0]
    width = prompts.tokens.shape[1]
    length = width + options.max_completion_length
    answers = _first_tokens(prompt_logits, row_keys, stop_table, options)
    first = answers.tokens[:, 0]
    over = _ends(first, answers.lengths >= limits, answers.stop_states, stop_table, options)
    requests = Requests(row_keys, limits, lengths, over, stop_table, None)
    if form in BY_LAYER and slots >= batch:
        progress = all_at_once(form, kept, requests, answers)
    else:
        requests = requests._replace(waiting=make_cache(form, *kept, length, part=width))
        progress = in_turn(form, kept[0], requests, answers, min(slots, batch), length)
    answers = _decode(networks.step_params(params, length), progress, requests, networks, options)
    return _to_rollout(prompts, answers, options)


def _first_tokens(
    prompt_logits: Float[Array, "N V"],
    row_keys: Key[Array, " B"],
    stop_table: Int[Array, "states V"] | None,
    options: DecodingOptions,
) -> Answers:
    """Token 0 of every request, drawn from its prompt's logits, one response of all groups a turn.

    So no more than [N, V] weights exist at one time.
    """
    group = options.group_size
    keys = row_keys.reshape(-1, group).T
    drawn = jax.lax.map(lambda k: draw(prompt_logits, _uniform(k, 0), options), keys)
    token, log_prob, sampled = (x.T.reshape(-1) for x in drawn)
    batch, room = token.shape[0], (0, options.max_completion_length - 1)
    tokens = jnp.pad(token[:, None], ((0, 0), room), constant_values=options.pad_id)
    log_probs, sampled = (jnp.pad(x[:, None], ((0, 0), room)) for x in (log_prob, sampled))
    states = jnp.zeros(batch, jnp.int32)
    if stop_table is not None:
        states = stop_table[states, token]
    return Answers(
        tokens=tokens,
        log_probs=log_probs,
        sampled_log_probs=sampled if options.sampled_log_probs else None,
        lengths=jnp.ones(batch, jnp.int32),
        stop_states=states,
    )


def _uniform(keys: Key[Array, " B"], t: Int[Array, " B"] | int) -> Float[Array, " B"]:
    """The noise of token t of each row."""
    at = jnp.broadcast_to(t, keys.shape)
    return jax.vmap(lambda k, i: jax.random.uniform(jax.random.fold_in(k, i)))(keys, at)


def _ends(
    token: Int[Array, " B"],
    at_limit: Bool[Array, " B"],
    stop_state: Int[Array, " B"],
    stop_table: Int[Array, "states V"] | None,
    options: DecodingOptions,
) -> Bool[Array, " B"]:
    """Whether each of these is the last token of its answer."""
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
    progress: Progress,
    requests: Requests,
    networks: Networks,
    options: DecodingOptions,
) -> Answers:
    """Every request to its end: the loop, in ever smaller programs once nothing waits."""
    batch, form = requests.keys.shape[0], networks.actor.decode
    step = partial(_step, params, networks=networks, options=options)
    sizes = [progress.slots.request.shape[0]]
    if form == "blocks":  # an accelerator reads all weights for every token, however few the rows
        sizes = _program_sizes(sizes[0], options.max_completion_length)
    for i, smaller in enumerate([*sizes[1:], 0]):

        def more(progress: Progress, smaller=smaller):
            live = jnp.sum(progress.slots.request < batch)
            return (progress.next < batch) | (live > smaller)

        with jax.named_scope("decode_tail" if i else "decode"):
            progress = while_any(more, partial(step, requests=requests), progress)
        if smaller:
            progress = progress._replace(slots=fewer(form, progress.slots, smaller))
            requests = requests._replace(waiting=None)
    return progress.answers


def _program_sizes(slots: int, completion: int) -> list[int]:
    """The rows of the first program and of each that follows: powers of two and 3/4 of them.

    Of short answers not all sizes that there are: a program must have tokens to decode.
    """
    sizes = [slots]
    while smaller := _next_size(sizes[-1]):
        sizes.append(smaller)
    most = max(1, completion // _FEWEST_TOKENS)
    return sizes[:: -(-len(sizes) // most)]


def _next_size(size: int) -> int:
    power = 2 ** (size.bit_length() - 1)
    sizes = (x for x in (power, power // 4 * 3, power // 2) if size - x >= _FEWEST_SPARED)
    return next((x for x in sizes if x >= _FEWEST_SLOTS), 0)


def _step(
    params: Params,
    progress: Progress,
    *,
    requests: Requests,
    networks: Networks,
    options: DecodingOptions,
) -> Progress:
    """Fills free slots, then one more token of every live request."""
    batch = requests.keys.shape[0]
    form, group = networks.actor.decode, options.group_size
    next_request, slots, answers = refill(progress, requests, form, group)
    request, live = slots.request, slots.request < batch
    longest = largest_of_shards(jnp.max(slots.held()))
    logits, cache = networks.actor_step(
        params, slots.token, slots.length, longest, slots.cache, slots.shared
    )
    t = answers.lengths[request]
    drawn: Draw = draw(logits, _uniform(requests.keys[request], t), options)
    state = answers.stop_states[request]
    if requests.stop_table is not None:
        state = requests.stop_table[state, drawn.token]
    at_limit = t + 1 >= requests.limits[request]
    ends = _ends(drawn.token, at_limit, state, requests.stop_table, options)
    # A free slot's request is out of range, and what it would write is dropped.
    answers = Answers(
        tokens=answers.tokens.at[request, t].set(drawn.token, mode="drop"),
        log_probs=answers.log_probs.at[request, t].set(drawn.log_prob, mode="drop"),
        sampled_log_probs=None
        if answers.sampled_log_probs is None
        else answers.sampled_log_probs.at[request, t].set(drawn.sampled_log_prob, mode="drop"),
        lengths=answers.lengths.at[request].set(t + 1, mode="drop"),
        stop_states=answers.stop_states.at[request].set(state, mode="drop"),
    )
    goes_on = live & ~ends
    slots = slots._replace(
        request=jnp.where(goes_on, request, batch),
        token=drawn.token,
        length=jnp.where(goes_on, slots.length + 1, 0),
        cache=cache,
    )
    return Progress(next_request, slots, answers)


def _to_rollout(prompts: PromptBatch, answers: Answers, options: DecodingOptions) -> Rollout:
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
    )
