"""Matrix products with weights, with hand-written backward passes where autodiff is slow on CPUs.

Training. On a CPU, XLA fuses the computation of a gradient (of a silu, of a norm) into the copy
that transposes it for a matrix product. It then repeats this computation for every product that
reads the gradient, with strided memory access. This took a third of a backward pass. Here each
gradient is computed and written to memory once, and the activations are transposed instead. On
other platforms XLA fuses such work into the products themselves, so nothing is changed there.

Decoding. A decoding step multiplies few rows with all weights, which it reads from memory.
A CPU reads the left operand sequentially and the right operand by columns. W · xᵀ therefore takes
50% to 90% of the time of x · W (`small_batch_dense`).
"""

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Array, Float

# Largest number of rows for which W · xᵀ is faster than x · W. The limit of the gated MLP is higher
# because its output is narrow; the output of a wide product has to be transposed.
_SMALL_BATCH = 64
_SMALL_BATCH_MLP = 128

# Names of arrays that a backward pass may read instead of computing them again. JAX's own policy
# for products without batch dimensions finds none in a stack of critics.
ATTENTION_PRODUCT, GATE_PRODUCT, UP_PRODUCT = "attention_product", "gate_product", "up_product"


def materialize(x: Array) -> Array:
    """`x`; on a CPU it is written to memory once, instead of being recomputed by every reader."""
    return jax.lax.platform_dependent(x, cpu=jax.lax.optimization_barrier, default=lambda y: y)


def squeeze_leading(x: Array) -> Array:
    """`x` with its axes of length 1 removed, except for the last axis.

    On a CPU, products with a leading axis of length 1 are 4 to 9 times slower.
    """
    return x.reshape(*(n for n in x.shape[:-1] if n > 1), x.shape[-1])


@jax.custom_vjp
def dense(x: Float[Array, "*B D"], kernel: Float[Array, "D F"]) -> Float[Array, "*B F"]:
    """x · W over the last axis; stored as `ATTENTION_PRODUCT`."""
    return _dense_forward(x, kernel)[0]


def _dense_forward(x, kernel):
    return checkpoint_name(x @ kernel, ATTENTION_PRODUCT), (x, kernel)


def _dense_backward(residuals, grad_out):
    x, kernel = residuals
    grad_out = materialize(grad_out)
    return _grad_input(grad_out, kernel), grad_kernel(x, grad_out)


dense.defvjp(_dense_forward, _dense_backward)


@jax.custom_vjp
def gated_mlp(
    x: Float[Array, "*B D"],
    gate: Float[Array, "D F"],
    up: Float[Array, "D F"],
    down: Float[Array, "F D"],
) -> Float[Array, "*B D"]:
    """down( silu(gate(x)) · up(x) ) (arXiv 2002.05202); stores only x, gate(x) and up(x)."""
    return _gated_forward(x, gate, up, down)[0]


def _gated_forward(x, gate, up, down):
    gate_out = checkpoint_name(x @ gate, GATE_PRODUCT)
    up_out = checkpoint_name(x @ up, UP_PRODUCT)
    out = (jax.nn.silu(gate_out) * up_out) @ down
    return out, (x, gate_out, up_out, gate, up, down)


def _gated_backward(residuals, grad_out):
    x, gate_out, up_out, gate, up, down = residuals
    sigmoid = jax.nn.sigmoid(gate_out)
    silu = gate_out * sigmoid
    grad_hidden = _grad_input(grad_out, down)
    # silu'(a) = σ(a) + a σ(a) (1 − σ(a))
    grad_gate_out = materialize(grad_hidden * up_out * (sigmoid + silu * (1 - sigmoid)))
    grad_up_out = materialize(grad_hidden * silu)
    grad_x = _grad_input(grad_gate_out, gate) + _grad_input(grad_up_out, up)
    grad_down = grad_kernel(materialize(silu * up_out), grad_out)
    return grad_x, grad_kernel(x, grad_gate_out), grad_kernel(x, grad_up_out), grad_down


gated_mlp.defvjp(_gated_forward, _gated_backward)


def small_batch_dense(
    x: Float[Array, "R D"], kernel: Float[Array, "F D"], dtype: DTypeLike | None = None
) -> Float[Array, "R F"]:
    """x · Wᵀ for a decoding step; the kernel's output axis is first.

    `dtype` is that of the result; None: that of x.
    """
    if x.shape[0] > _SMALL_BATCH:
        return jnp.einsum("rd,fd->rf", x, kernel, preferred_element_type=dtype)
    return _features_first(x, kernel, dtype).T


def small_batch_gated_mlp(
    x: Float[Array, "R D"],
    gate: Float[Array, "F D"],
    up: Float[Array, "F D"],
    down: Float[Array, "D F"],
) -> Float[Array, "R D"]:
    """`gated_mlp` for a decoding step; the kernels' output axes are first."""
    if x.shape[0] > _SMALL_BATCH_MLP:
        return (jax.nn.silu(x @ gate.T) * (x @ up.T)) @ down.T
    hidden = jax.nn.silu(_features_first(x, gate)) * _features_first(x, up)
    return jax.lax.optimization_barrier(down @ hidden).T


def _features_first(
    x: Float[Array, "R D"], kernel: Float[Array, "F D"], dtype: DTypeLike | None = None
) -> Float[Array, "F R"]:
    """W · xᵀ; without the barrier XLA would rewrite the transposed product as x · Wᵀ."""
    product = jnp.einsum("fd,rd->fr", kernel, x, preferred_element_type=dtype)
    return jax.lax.optimization_barrier(product)


def _grad_input(
    grad_out: Float[Array, "*B F"], kernel: Float[Array, "D F"]
) -> Float[Array, "*B D"]:
    return jnp.einsum("...f,df->...d", grad_out, kernel)


def grad_kernel(x: Float[Array, "*B D"], grad_out: Float[Array, "*B F"]) -> Float[Array, "D F"]:
    """xᵀ · ∂out: the gradient of a loss of x · W with respect to W, given ∂out."""
    rows, grad_rows = x.reshape(-1, x.shape[-1]), grad_out.reshape(-1, grad_out.shape[-1])
    # XLA's faster CPU products need the left operand contiguous in this layout; at a vocabulary's
    # width this saves a third of the time.
    return materialize(rows.T) @ grad_rows
