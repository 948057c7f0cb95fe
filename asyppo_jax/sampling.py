"""Sampling completions: one jitted program, a prefill and a decoding loop.

Each prompt is prefilled once and its cache fanned out to the G responses of its group; the loop
then draws one token a row until every row has ended. The key decides everything: row b's token t
depends on the key, b and t alone.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray

from asyppo_jax.models.actor_critic import Networks, in_compute_dtype, init_actor
from asyppo_jax.models.decoder import constrain_cache, empty_cache
from asyppo_jax.models.layers import Cache
from asyppo_jax.sharding import constrain_batch, gather_params
from asyppo_jax.types import Params, PromptBatch, Rollout

_BLOCK = 512  # vocabulary entries that `draw` looks at together


@dataclass(frozen=True)
class DecodingOptions:
    """What the loop is compiled for."""

    group_size: int  # G
    max_completion_length: int  # C
    temperature: float  # 0: greedy
    top_k: int  # 0: off
    top_p: float  # 1: off
    stop_ids: tuple[int, ...]  # a row ends with the first of these, which belongs to it
    pad_id: int
    slots: int = 0  # rows decoded at one time, whole groups; 0: all


def sample(
    params: Params,
    prompts: PromptBatch,
    key: PRNGKeyArray,
    *,
    networks: Networks,
    options: DecodingOptions,
) -> Rollout:
    """G completions for each of N prompts, the responses of a prompt side by side.

    `log_probs` are the plain policy's log π(token), whatever temperature or truncation drew it.
    Rewards come later: until they are replaced, all are 0 and invalid.
    """
    num_prompts, group_size = prompts.tokens.shape[0], options.group_size
    params = decoding_params(params, networks)
    row_keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(num_prompts * group_size))
    waves = num_prompts * group_size // (options.slots or row_keys.shape[0])

    def one_wave(some: PromptBatch, keys: Key[Array, " B"]) -> Rollout:
        logits, cache = prefill(params, some, options.max_completion_length, networks)
        return decode(params, some, logits, cache, keys, networks=networks, options=options)

    if waves == 1:
        return one_wave(prompts, row_keys)

    # Strided by prompt, so that on a mesh every wave takes its share of each device's rows.
    def cut(x):
        return x.reshape(-1, waves, *x.shape[1:]).swapaxes(0, 1)

    def join(x):
        by_prompt = x.reshape(waves, -1, group_size, *x.shape[2:]).swapaxes(0, 1)
        return by_prompt.reshape(num_prompts * group_size, *x.shape[2:])

    inputs = jax.tree.map(cut, (prompts, row_keys.reshape(num_prompts, group_size)))
    done = jax.lax.map(
        lambda x: one_wave(constrain_batch(x[0]), x[1].reshape(-1)), constrain_batch(inputs, axis=1)
    )
    return constrain_batch(jax.tree.map(join, done))


def decoding_params(params: Params, networks: Networks) -> Params:
    """The parameters as the decoding loop reads them: in the compute dtype, whole over `data`.

    Both once a rollout instead of once a token.
    """
    actor = networks.actor
    boxed = jax.eval_shape(lambda: init_actor(actor, jax.random.key(0)))
    return gather_params(in_compute_dtype(params, actor.dtype), boxed)


def prefill(
    params: Params, prompts: PromptBatch, completion_length: int, networks: Networks
) -> tuple[Float[Array, "N V"], Cache]:
    """The logits of the first completion token, and a cache with room for the completion."""
    num_prompts, prompt_length = prompts.tokens.shape
    slots = prompt_length + completion_length
    actor = networks.actor
    cache = empty_cache(actor.config, num_prompts, slots, actor.dtype)
    segments = prompts.mask.astype(jnp.int32)
    return networks.actor_prefill(params, prompts.tokens, segments, cache)


def decode(
    params: Params,
    prompts: PromptBatch,
    logits: Float[Array, "N V"],
    cache: Cache,
    row_keys: Key[Array, " B"],
    *,
    networks: Networks,
    options: DecodingOptions,
) -> Rollout:
    """The loop after `prefill`: one token a row and turn, until every row has ended."""
    opts = options
    prompt_length, length = prompts.tokens.shape[1], opts.max_completion_length
    batch = row_keys.shape[0]
    logits, prompt_mask, prompt_tokens = constrain_batch(
        jax.tree.map(
            lambda x: jnp.repeat(x, opts.group_size, axis=0),
            (logits, prompts.mask, prompts.tokens),
        )
    )
    # The cache is [L, N, ...]: rows are its second axis.
    cache = constrain_cache(jax.tree.map(lambda x: jnp.repeat(x, opts.group_size, axis=1), cache))
    prompt_lengths = jnp.sum(prompt_mask, axis=-1, dtype=jnp.int32)
    slots = jnp.arange(prompt_length + length)
    slot_is_prompt = jnp.pad(prompt_mask, ((0, 0), (0, length)))

    def put(t, logits, done, tokens, log_probs, mask):
        """Draws token t of every row that still goes on, and writes it down."""
        uniform = jax.vmap(lambda k: jax.random.uniform(jax.random.fold_in(k, t)))(row_keys)
        token, log_prob = draw(logits, uniform, opts)
        token = jnp.where(done, opts.pad_id, token)
        tokens = tokens.at[:, t].set(token)
        log_probs = log_probs.at[:, t].set(jnp.where(done, 0.0, log_prob))
        mask = mask.at[:, t].set(~done)
        return done | is_stop(token, opts.stop_ids), tokens, log_probs, mask

    def unfinished(carry):
        t, _, (done, *_) = carry
        return (t < length) & ~jnp.all(done)

    def step(carry):
        t, cache, (done, tokens, log_probs, mask) = carry
        last = jax.lax.dynamic_index_in_dim(tokens, t - 1, axis=1)
        slot = prompt_length + t - 1
        generated = (slots >= prompt_length) & (slots <= slot)
        visible = (slot_is_prompt | generated[None])[:, None, :]
        positions = (prompt_lengths + t - 1)[:, None]
        logits, cache = networks.actor_step(params, last, positions, visible, cache, slot)
        return t + 1, cache, put(t, logits, done, tokens, log_probs, mask)

    empty = (
        jnp.zeros(batch, bool),
        jnp.full((batch, length), opts.pad_id, jnp.int32),
        jnp.zeros((batch, length), jnp.float32),
        jnp.zeros((batch, length), bool),
    )
    carry = (jnp.int32(1), cache, put(jnp.int32(0), logits, *empty))
    _, _, (_, tokens, log_probs, mask) = jax.lax.while_loop(unfinished, step, carry)
    return Rollout(
        tokens=jnp.concatenate([prompt_tokens, tokens], axis=1),
        prompt_mask=prompt_mask,
        completion_mask=mask,
        log_probs=log_probs,
        rewards=jnp.zeros(batch, jnp.float32),
        reward_valid=jnp.zeros(batch, bool),
    )


def is_stop(tokens: Int[Array, " B"], stop_ids: tuple[int, ...]) -> Array:
    """Whether each token is one of the stop tokens."""
    stops = jnp.asarray(stop_ids, jnp.int32)
    return jnp.any(tokens[:, None] == stops[None, :], axis=-1)


def draw(
    logits: Float[Array, "B V"], uniform: Float[Array, " B"], options: DecodingOptions
) -> tuple[Int[Array, " B"], Float[Array, " B"]]:
    """A token a row from softmax(logits / temperature) after top-k and top-p; its plain log π."""
    if options.temperature == 0:
        token = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    else:
        scaled = truncate(logits / options.temperature, options.top_k, options.top_p)
        token = inverse_cdf(scaled, uniform)
    chosen = jnp.take_along_axis(logits, token[:, None], axis=-1)[:, 0]
    return token, chosen - jax.nn.logsumexp(logits, axis=-1)


def truncate(logits: Float[Array, "B V"], top_k: int, top_p: float) -> Float[Array, "B V"]:
    """−inf outside the k likeliest tokens, then outside the nucleus (arXiv 1904.09751).

    The nucleus is the smallest set of likeliest tokens whose probability reaches `top_p`; it always
    holds the likeliest one. Tokens that tie with the last kept one are kept.
    """
    if top_k and top_k < logits.shape[-1]:
        smallest = jax.lax.top_k(logits, top_k)[0][:, -1:]
        logits = jnp.where(logits >= smallest, logits, -jnp.inf)
    if top_p < 1:
        ordered = jnp.sort(logits, axis=-1, descending=True)
        p = jax.nn.softmax(ordered, axis=-1)
        before = jnp.cumsum(p, axis=-1) - p
        smallest = jnp.min(jnp.where(before < top_p, ordered, jnp.inf), axis=-1, keepdims=True)
        logits = jnp.where(logits >= smallest, logits, -jnp.inf)
    return logits


def inverse_cdf(logits: Float[Array, "B V"], uniform: Float[Array, " B"]) -> Int[Array, " B"]:
    """The token whose share of the cumulative distribution holds `uniform` in [0, 1).

    One uniform a row instead of a Gumbel for every entry of the vocabulary, and two short searches
    (a block, then an entry in it) instead of one long cumulative sum, whose rounding would grow.
    """
    weights = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))
    weights = jnp.pad(weights, ((0, 0), (0, -weights.shape[-1] % _BLOCK)))
    blocks = weights.reshape(weights.shape[0], -1, _BLOCK)
    sums = jnp.sum(blocks, axis=-1)
    block, below = _search(sums, uniform * jnp.sum(sums, axis=-1))
    inside = jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0]
    entry, _ = _search(inside, uniform * jnp.sum(sums, axis=-1) - below)
    return (block * _BLOCK + entry).astype(jnp.int32)


def _search(
    weights: Float[Array, "B n"], target: Float[Array, " B"]
) -> tuple[Int[Array, " B"], Float[Array, " B"]]:
    """The first entry of positive weight whose cumulative sum passes `target`; the sum below it.

    Rounding may leave no such entry; then it is the last of positive weight. An entry of weight 0
    (a truncated token) is never found.
    """
    cumulative = jnp.cumsum(weights, axis=-1)
    hit = (cumulative > target[:, None]) & (weights > 0)
    last = weights.shape[-1] - 1 - jnp.argmax(jnp.flip(weights > 0, axis=-1), axis=-1)
    index = jnp.where(jnp.any(hit, axis=-1), jnp.argmax(hit, axis=-1), last)
    taken = jnp.take_along_axis(cumulative - weights, index[:, None], axis=-1)[:, 0]
    return index, taken
