"""Log-probs and entropy without a [B, T, V] array: the vocabulary is met a few positions at a time.

With several chunks the backward pass rebuilds their logits instead of keeping them, so at most
[B, chunk, V] exists in either direction; a single chunk's are kept, since the backward pass begins
with them. Both directions are loops of a length known at run time alone, for which autodiff has no
rule; so the backward one is written out.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from asyppo_jax.ops.products import by_kernel, made_once, without_ones


def log_probs_and_entropy(
    hidden: Float[Array, "B C D"],
    head: Float[Array, "D V"],
    targets: Int[Array, "B C"],
    *,
    chunk: int,
    needed: Bool[Array, "B C"] | None = None,
) -> tuple[Float[Array, "B C"], Float[Array, "B C"]]:
    """log π(target) and H(π) = −Σ_v π_v log π_v at every position, in float32 (nats).

    The entropy is over the full vocabulary. `chunk` is the number of positions whose logits exist
    at one time; it need not divide C. The products run in the dtype of `hidden`, sums in float32.
    With `needed` the other positions give 0, and the cost is that of the row with most needed ones.
    """
    batch, length, width = hidden.shape
    head = head.astype(hidden.dtype)
    if length <= chunk:  # a single chunk needs no loop, and XLA fuses it better
        results = _log_prob_and_entropy(hidden, head, targets)
        return results if needed is None else _only(needed, results)
    num_chunks: Array | int = -(-length // chunk)
    order = None
    if needed is not None:  # first in each row, so that the last chunks can be left out
        order = jnp.argsort(~needed, axis=1)
        hidden = jnp.take_along_axis(hidden, order[..., None], axis=1)
        targets = jnp.take_along_axis(targets, order, axis=1)
        num_chunks = (jnp.max(jnp.sum(needed, axis=1)) + chunk - 1) // chunk
    hidden = jnp.pad(hidden, ((0, 0), (0, -length % chunk), (0, 0)))
    targets = jnp.pad(targets, ((0, 0), (0, -length % chunk)))
    hidden_chunks = hidden.reshape(batch, -1, chunk, width).swapaxes(0, 1)
    target_chunks = targets.reshape(batch, -1, chunk).swapaxes(0, 1)
    log_probs, entropy = _in_chunks(hidden_chunks, head, target_chunks, num_chunks)
    results = _join(log_probs, length), _join(entropy, length)
    if needed is None or order is None:
        return results
    back = jnp.argsort(order, axis=1)
    log_probs, entropy = (jnp.take_along_axis(x, back, axis=1) for x in results)
    return _only(needed, (log_probs, entropy))


def _only(needed: Bool[Array, "B C"], results: tuple[Array, Array]) -> tuple[Array, Array]:
    return jnp.where(needed, results[0], 0.0), jnp.where(needed, results[1], 0.0)


@jax.custom_vjp
def _in_chunks(
    hidden: Float[Array, "n B c D"],
    head: Float[Array, "D V"],
    targets: Int[Array, "n B c"],
    num_chunks: Int[Array, ""] | int,
) -> tuple[Float[Array, "n B c"], Float[Array, "n B c"]]:
    """The first `num_chunks` chunks one after another; those behind them are 0."""

    def one(i, results):
        log_prob, entropy = _log_prob_and_entropy(hidden[i], head, targets[i])
        return results[0].at[i].set(log_prob), results[1].at[i].set(entropy)

    zeros = jnp.zeros(targets.shape, jnp.float32)
    with jax.named_scope("logits_chunks"):
        return jax.lax.fori_loop(0, num_chunks, one, (zeros, zeros))


def _forward(hidden, head, targets, num_chunks):
    return _in_chunks(hidden, head, targets, num_chunks), (hidden, head, targets, num_chunks)


def _backward(saved, by_results):
    hidden, head, targets, num_chunks = saved

    def one(i, gradients):
        by_hidden, by_head = gradients
        _, pull = jax.vjp(lambda h, w: _log_prob_and_entropy(h, w, targets[i]), hidden[i], head)
        here, by_head_here = pull((by_results[0][i], by_results[1][i]))
        return by_hidden.at[i].set(here), by_head + by_head_here

    # The head's gradient is a sum over all chunks: in bfloat16 it would lose the small ones.
    zeros = jnp.zeros_like(hidden), jnp.zeros(head.shape, jnp.float32)
    with jax.named_scope("logits_chunks"):
        by_hidden, by_head = jax.lax.fori_loop(0, num_chunks, one, zeros)
    return by_hidden, by_head.astype(head.dtype), None, None


_in_chunks.defvjp(_forward, _backward)


def _log_prob_and_entropy(
    hidden: Float[Array, "B c D"], head: Float[Array, "D V"], targets: Int[Array, "B c"]
) -> tuple[Float[Array, "B c"], Float[Array, "B c"]]:
    few = without_ones(hidden)
    results = _of_rows(few, head, targets.reshape(few.shape[:-1]))
    return results[0].reshape(targets.shape), results[1].reshape(targets.shape)


@jax.custom_vjp
def _of_rows(
    hidden: Float[Array, "*c D"], head: Float[Array, "D V"], targets: Int[Array, "*c"]
) -> tuple[Float[Array, "*c"], Float[Array, "*c"]]:
    return _rows_forward(hidden, head, targets)[0]


def _rows_forward(hidden, head, targets):
    logits = jnp.einsum("...d,dv->...v", hidden, head, preferred_element_type=jnp.float32)
    highest = jnp.max(logits, axis=-1, keepdims=True)
    below, weight = _log_p_and_p(logits, highest[..., 0])
    total, weighted = jnp.sum(weight, axis=-1), jnp.sum(weight * below, axis=-1)
    log_total = highest[..., 0] + jnp.log(total)
    log_prob = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0] - log_total
    # −Σ π log π with π = w / Σw, w = exp(x − max x): two sums of one pass, neither term negative.
    entropy = jnp.log(total) - weighted / total
    return (log_prob, entropy), (hidden, head, targets, logits, log_total, entropy)


def _rows_backward(saved, by_results):
    """∂ log π(a) / ∂ logit_v = [v = a] − π_v;  ∂H / ∂ logit_v = −π_v (log π_v + H)."""
    hidden, head, targets, logits, log_total, entropy = saved
    by_log_prob, by_entropy = (x[..., None] for x in by_results)
    log_p, p = _log_p_and_p(logits, log_total)
    places = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
    by_logits = jnp.where(places == targets[..., None], by_log_prob, 0.0) - p * (
        by_log_prob + by_entropy * (log_p + entropy[..., None])
    )
    by_logits = made_once(by_logits.astype(hidden.dtype))
    by_hidden = jnp.einsum("...v,dv->...d", by_logits, head)
    return by_hidden, by_kernel(hidden, by_logits), None


_of_rows.defvjp(_rows_forward, _rows_backward)


def _log_p_and_p(
    logits: Float[Array, "*c V"], log_total: Float[Array, "*c"]
) -> tuple[Float[Array, "*c V"], Float[Array, "*c V"]]:
    """x − log_total, and its exponential: of the log of Σ exp(x), log π and π."""
    log_p = logits - log_total[..., None]
    # exp(-inf) * -inf is NaN; a forbidden token has no part in the entropy.
    return jnp.where(jnp.isneginf(log_p), 0.0, log_p), jnp.exp(log_p)


def _join(chunks: Float[Array, "n B c"], length: int) -> Float[Array, "B C"]:
    return chunks.swapaxes(0, 1).reshape(chunks.shape[1], -1)[:, :length]
