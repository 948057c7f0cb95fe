"""Products with weights, whose backward passes are written out where autodiff's are slow.

On a CPU, XLA fuses what makes a gradient (a silu's, a norm's) into the copy that transposes it for
a product, and computes it once for every product that reads it, across the rows of memory: a third
of a backward pass. Here a gradient is made once and the activations are what is transposed. Other
platforms fuse such work into their products and are left to it.

A decoding step multiplies few rows with weights that come from memory anew for every token. A CPU
reads a left operand's memory in order, a right one's in columns: there W · xᵀ takes half to nine
tenths of the time of x · W (`few_rows_dense`).
"""

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Array, Float

# Rows up to which the weights are better the left operand; of a wide product, whose output has to
# be transposed, and of the gated MLP, whose output is narrow.
_FEW_ROWS = 64
_FEW_ROWS_OF_MLP = 128

# What remat "dots" keeps; by name, because a stack of critics has only batched products.
PRODUCT = "product_with_weights"


def made_once(x: Array) -> Array:
    """`x`, which on a CPU is written to memory before anything reads it."""
    return jax.lax.platform_dependent(x, cpu=jax.lax.optimization_barrier, default=lambda y: y)


def without_ones(x: Array) -> Array:
    """`x` without axes of length 1 before its last: a CPU sums products four to nine times as
    slowly where one leads.
    """
    return x.reshape(*(n for n in x.shape[:-1] if n > 1), x.shape[-1])


@jax.custom_vjp
def dense(x: Float[Array, "*B D"], kernel: Float[Array, "D F"]) -> Float[Array, "*B F"]:
    """x · W over the last axis."""
    return _product(x, kernel)


def _dense_forward(x, kernel):
    return _product(x, kernel), (x, kernel)


def _dense_backward(saved, by_out):
    x, kernel = saved
    by_out = made_once(by_out)
    return _by_input(by_out, kernel), by_kernel(x, by_out)


dense.defvjp(_dense_forward, _dense_backward)


@jax.custom_vjp
def gated_mlp(
    x: Float[Array, "*B D"],
    gate: Float[Array, "D F"],
    up: Float[Array, "D F"],
    down: Float[Array, "F D"],
) -> Float[Array, "*B D"]:
    """down( silu(gate(x)) · up(x) ) (arXiv 2002.05202); keeps x, gate(x) and up(x) alone."""
    return _gated_forward(x, gate, up, down)[0]


def _gated_forward(x, gate, up, down):
    gated, raised = _product(x, gate), _product(x, up)
    out = _product(jax.nn.silu(gated) * raised, down)
    return out, (x, gated, raised, gate, up, down)


def _gated_backward(saved, by_out):
    x, gated, raised, gate, up, down = saved
    share = jax.nn.sigmoid(gated)
    silu = gated * share
    by_hidden = _by_input(by_out, down)
    # silu'(a) = σ(a) + a σ(a) (1 − σ(a))
    by_gated = made_once(by_hidden * raised * (share + silu * (1 - share)))
    by_raised = made_once(by_hidden * silu)
    by_x = _by_input(by_gated, gate) + _by_input(by_raised, up)
    by_down = by_kernel(made_once(silu * raised), by_out)
    return by_x, by_kernel(x, by_gated), by_kernel(x, by_raised), by_down


gated_mlp.defvjp(_gated_forward, _gated_backward)


def few_rows_dense(
    x: Float[Array, "R D"], kernel: Float[Array, "F D"], dtype: DTypeLike | None = None
) -> Float[Array, "R F"]:
    """x · Wᵀ in `dtype` (that of x): a kernel with its outputs first, for a decoding step."""
    if x.shape[0] > _FEW_ROWS:
        return jnp.einsum("rd,fd->rf", x, kernel, preferred_element_type=dtype)
    return _features_first(x, kernel, dtype).T


def few_rows_gated_mlp(
    x: Float[Array, "R D"],
    gate: Float[Array, "F D"],
    up: Float[Array, "F D"],
    down: Float[Array, "D F"],
) -> Float[Array, "R D"]:
    """`gated_mlp` of kernels with their outputs first, for a decoding step."""
    if x.shape[0] > _FEW_ROWS_OF_MLP:
        return (jax.nn.silu(x @ gate.T) * (x @ up.T)) @ down.T
    hidden = jax.nn.silu(_features_first(x, gate)) * _features_first(x, up)
    return jax.lax.optimization_barrier(down @ hidden).T


def _features_first(
    x: Float[Array, "R D"], kernel: Float[Array, "F D"], dtype: DTypeLike | None = None
) -> Float[Array, "F R"]:
    """W · xᵀ; the barrier, because of the transpose of a product XLA makes x · Wᵀ again."""
    product = jnp.einsum("fd,rd->fr", kernel, x, preferred_element_type=dtype)
    return jax.lax.optimization_barrier(product)


def _product(x: Float[Array, "*B D"], kernel: Float[Array, "D F"]) -> Float[Array, "*B F"]:
    return checkpoint_name(x @ kernel, PRODUCT)


def _by_input(by_out: Float[Array, "*B F"], kernel: Float[Array, "D F"]) -> Float[Array, "*B D"]:
    return jnp.einsum("...f,df->...d", by_out, kernel)


def by_kernel(x: Float[Array, "*B D"], by_out: Float[Array, "*B F"]) -> Float[Array, "D F"]:
    """xᵀ · ∂out, the gradient of x · W by W."""
    rows, by_out = x.reshape(-1, x.shape[-1]), by_out.reshape(-1, by_out.shape[-1])
    # Its quicker products, a third at a vocabulary's width, want a left operand that lies so.
    return made_once(rows.T) @ by_out
