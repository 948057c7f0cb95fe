"""Log-probs and entropy without a [B, T, V] array: the vocabulary is met a few positions at a time.

`jax.checkpoint` on each chunk makes the backward pass rebuild the chunk's logits instead of keeping
them, so at most [B, chunk, V] exists in either direction.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def log_probs_and_entropy(
    hidden: Float[Array, "B C D"],
    head: Float[Array, "D V"],
    targets: Int[Array, "B C"],
    *,
    chunk: int,
) -> tuple[Float[Array, "B C"], Float[Array, "B C"]]:
    """log π(target) and H(π) = −Σ_v π_v log π_v at every position, in float32 (nats).

    The entropy is over the full vocabulary. `chunk` is the number of positions whose logits exist
    at one time; it need not divide C. The products run in the dtype of `hidden`, sums in float32.
    """
    batch, length, width = hidden.shape
    chunk = min(chunk, length)
    padding = -length % chunk
    hidden = jnp.pad(hidden, ((0, 0), (0, padding), (0, 0)))
    targets = jnp.pad(targets, ((0, 0), (0, padding)))
    hidden_chunks = hidden.reshape(batch, -1, chunk, width).swapaxes(0, 1)
    target_chunks = targets.reshape(batch, -1, chunk).swapaxes(0, 1)
    head = head.astype(hidden.dtype)

    @jax.checkpoint
    def one_chunk(h, target):
        logits = jnp.einsum("bcd,dv->bcv", h, head, preferred_element_type=jnp.float32)
        return _log_prob_and_entropy(logits, target)

    # A single chunk needs no loop, and XLA fuses it better.
    if hidden_chunks.shape[0] == 1:
        return one_chunk(hidden_chunks[0], target_chunks[0])
    log_probs, entropy = jax.lax.map(lambda x: one_chunk(*x), (hidden_chunks, target_chunks))
    return _join(log_probs, length), _join(entropy, length)


def _log_prob_and_entropy(
    logits: Float[Array, "B c V"], targets: Int[Array, "B c"]
) -> tuple[Float[Array, "B c"], Float[Array, "B c"]]:
    log_p = jax.nn.log_softmax(logits, axis=-1)
    log_prob = jnp.take_along_axis(log_p, targets[..., None], axis=-1)[..., 0]
    # exp(-inf) * -inf is NaN; a forbidden token has no part in the entropy.
    p_log_p = jnp.where(jnp.isneginf(log_p), 0.0, jnp.exp(log_p) * log_p)
    return log_prob, -jnp.sum(p_log_p, axis=-1)


def _join(chunks: Float[Array, "n B c"], length: int) -> Float[Array, "B C"]:
    return chunks.swapaxes(0, 1).reshape(chunks.shape[1], -1)[:, :length]
