"""Log-probs and entropy without a [B, T, V] array of logits: positions are processed in chunks.

With several chunks, the backward pass recomputes each chunk's logits instead of storing them, so
at most [B, chunk, V] logits exist at a time in either pass. With a single chunk the logits are
stored: the backward pass starts with them, so recomputing would save no memory. With `needed` the
number of chunks is known only at run time. Autodiff cannot differentiate such a loop, so the
backward pass is written by hand.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from asyppo_jax.ops.checks import check_arrays
from asyppo_jax.ops.products import grad_kernel, materialize, squeeze_leading


@check_arrays
def log_probs_and_entropy(
    hidden: Float[Array, "B C D"],
    head: Float[Array, "D V"],
    targets: Int[Array, "B C"],
    *,
    chunk: int,
    needed: Bool[Array, "B C"] | None = None,
) -> tuple[Float[Array, "B C"], Float[Array, "B C"]]:
    """log π(target) and the entropy H(π) = −Σ_v π_v log π_v per position, in float32 (nats).

    The entropy is over the full vocabulary. `chunk` is the number of positions per row whose logits
    exist at one time; it need not divide C. Matrix products run in the dtype of `hidden`, sums in
    float32. If `needed` is given, all other positions get 0; the cost then depends on the largest
    number of needed positions in any row.
    """
    batch, length, width = hidden.shape
    head = head.astype(hidden.dtype)
    if length <= chunk:  # a single chunk needs no loop, and XLA fuses it better
        results = _log_prob_and_entropy(hidden, head, targets)
        return results if needed is None else _zero_unneeded(needed, results)
    num_chunks: Array | int = -(-length // chunk)
    order = None
    if needed is not None:  # needed positions go first in each row, so the last chunks are skipped
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
    inverse = jnp.argsort(order, axis=1)
    log_probs, entropy = (jnp.take_along_axis(x, inverse, axis=1) for x in results)
    return _zero_unneeded(needed, (log_probs, entropy))


def _zero_unneeded(needed: Bool[Array, "B C"], results: tuple[Array, Array]) -> tuple[Array, Array]:
    log_probs, entropy = results
    return jnp.where(needed, log_probs, 0.0), jnp.where(needed, entropy, 0.0)


@jax.custom_vjp
def _in_chunks(
    hidden: Float[Array, "n B c D"],
    head: Float[Array, "D V"],
    targets: Int[Array, "n B c"],
    num_chunks: Int[Array, ""] | int,
) -> tuple[Float[Array, "n B c"], Float[Array, "n B c"]]:
    """Log-probs and entropy of the first `num_chunks` chunks in a loop; 0 for the other chunks."""

    def compute_chunk(i, results):
        log_probs, entropies = results
        log_prob, entropy = _log_prob_and_entropy(hidden[i], head, targets[i])
        return log_probs.at[i].set(log_prob), entropies.at[i].set(entropy)

    zeros = jnp.zeros(targets.shape, jnp.float32)
    with jax.named_scope("logits_chunks"):
        return jax.lax.fori_loop(0, num_chunks, compute_chunk, (zeros, zeros))


def _forward(hidden, head, targets, num_chunks):
    return _in_chunks(hidden, head, targets, num_chunks), (hidden, head, targets, num_chunks)


def _backward(residuals, grad_results):
    hidden, head, targets, num_chunks = residuals
    grad_log_probs, grad_entropy = grad_results

    def add_chunk(i, gradients):
        grad_hidden, grad_head = gradients
        _, vjp = jax.vjp(lambda h, w: _log_prob_and_entropy(h, w, targets[i]), hidden[i], head)
        grad_hidden_chunk, grad_head_chunk = vjp((grad_log_probs[i], grad_entropy[i]))
        return grad_hidden.at[i].set(grad_hidden_chunk), grad_head + grad_head_chunk

    # Float32, because the head's gradient is a sum over all chunks: a bfloat16 sum would lose the
    # small terms.
    zeros = jnp.zeros_like(hidden), jnp.zeros(head.shape, jnp.float32)
    with jax.named_scope("logits_chunks"):
        grad_hidden, grad_head = jax.lax.fori_loop(0, num_chunks, add_chunk, zeros)
    return grad_hidden, grad_head.astype(head.dtype), None, None


_in_chunks.defvjp(_forward, _backward)


def _log_prob_and_entropy(
    hidden: Float[Array, "B c D"], head: Float[Array, "D V"], targets: Int[Array, "B c"]
) -> tuple[Float[Array, "B c"], Float[Array, "B c"]]:
    squeezed = squeeze_leading(hidden)
    log_prob, entropy = _from_logits(squeezed, head, targets.reshape(squeezed.shape[:-1]))
    return log_prob.reshape(targets.shape), entropy.reshape(targets.shape)


@jax.custom_vjp
def _from_logits(
    hidden: Float[Array, "*c D"], head: Float[Array, "D V"], targets: Int[Array, "*c"]
) -> tuple[Float[Array, "*c"], Float[Array, "*c"]]:
    return _from_logits_forward(hidden, head, targets)[0]


def _from_logits_forward(hidden, head, targets):
    logits = jnp.einsum("...d,dv->...v", hidden, head, preferred_element_type=jnp.float32)
    maximum = jnp.max(logits, axis=-1, keepdims=True)
    shifted, weights = _log_p_and_p(logits, maximum[..., 0])
    total, weighted = jnp.sum(weights, axis=-1), jnp.sum(weights * shifted, axis=-1)
    log_total = maximum[..., 0] + jnp.log(total)
    log_prob = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0] - log_total
    # −Σ π log π = log Σw − Σ w (x − max x) / Σw with w = exp(x − max x) and π = w / Σw. One pass
    # gives both sums, and neither term is negative.
    entropy = jnp.log(total) - weighted / total
    return (log_prob, entropy), (hidden, head, targets, logits, log_total, entropy)


def _from_logits_backward(residuals, grad_results):
    """∂ log π(a) / ∂ logit_v = [v = a] − π_v;  ∂H / ∂ logit_v = −π_v (log π_v + H)."""
    hidden, head, targets, logits, log_total, entropy = residuals
    grad_log_prob, grad_entropy = (gradient[..., None] for gradient in grad_results)
    log_p, p = _log_p_and_p(logits, log_total)
    token_ids = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
    grad_logits = jnp.where(token_ids == targets[..., None], grad_log_prob, 0.0) - p * (
        grad_log_prob + grad_entropy * (log_p + entropy[..., None])
    )
    grad_logits = materialize(grad_logits.astype(hidden.dtype))
    grad_hidden = jnp.einsum("...v,dv->...d", grad_logits, head)
    return grad_hidden, grad_kernel(hidden, grad_logits), None


_from_logits.defvjp(_from_logits_forward, _from_logits_backward)


def _log_p_and_p(
    logits: Float[Array, "*c V"], log_total: Float[Array, "*c"]
) -> tuple[Float[Array, "*c V"], Float[Array, "*c V"]]:
    """logits − log_total and its exponential: log π and π if log_total is log Σ exp(logits)."""
    log_p = logits - log_total[..., None]
    # A forbidden token (logit -inf) must add 0 to the entropy, but exp(-inf) * -inf is NaN.
    return jnp.where(jnp.isneginf(log_p), 0.0, log_p), jnp.exp(log_p)


def _join(chunks: Float[Array, "n B c"], length: int) -> Float[Array, "B C"]:
    return chunks.swapaxes(0, 1).reshape(chunks.shape[1], -1)[:, :length]
