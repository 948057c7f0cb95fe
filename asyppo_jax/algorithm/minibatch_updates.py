"""What both updates share: minibatches, microbatches, the mesh and the optimizer."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from asyppo_jax.algorithm.batching.microbatches import accumulate
from asyppo_jax.algorithm.batching.rows import UpdateRows
from asyppo_jax.algorithm.optimizer import StackOptimizer, apply_gradients
from asyppo_jax.algorithm.placement import Placement
from asyppo_jax.types import Metrics, Params

# (params, rows of a microbatch, denominator of the minibatch) -> (loss, (sums, maxima) of metrics)
Loss = Callable[[Params, UpdateRows, Array], tuple[Array, tuple[Metrics, Metrics]]]


class Minibatch(NamedTuple):
    """Rows laid out for the network, how many of them are in use, and the loss's denominator.

    The denominator is counted over the minibatch before its first microbatch, so the division into
    microbatches changes no number.
    """

    rows: UpdateRows
    num_rows: Array | int
    denominator: Array


def update_in_minibatches(
    loss: Loss,
    params: Params,
    opt_state: Any,
    indices: Int[Array, "E ..."],
    read_minibatch: Callable[[Array], Minibatch],
    *,
    optimizer: optax.GradientTransformation | StackOptimizer,
    placement: Placement,
    microbatch_size: int,
    axis: int = 0,
) -> tuple[Params, Any, tuple[Metrics, Metrics, Array]]:
    """Parameters, optimizer state and statistics after one optimizer update per minibatch.

    A minibatch's gradient is summed over its microbatches. `read_minibatch` makes a minibatch from
    each entry of `indices`. Rows are along `axis`: 0 for one network, 1 for stacked critics, whose
    axis 0 is the critic. The statistics are, per minibatch, the (sums, maxima) of the loss's
    metrics and the gradient norm (one per critic for a stack).

    A gradient of exactly 0, of a minibatch without a token to learn from, changes neither the
    parameters nor the optimizer state. Adam's momentum and weight decay would move them.
    """
    norm = jax.vmap(optax.tree.norm) if axis else optax.tree.norm

    def update(carry, index):
        params, opt_state = carry
        rows, num_rows, denominator = read_minibatch(index)

        def microbatch(params, denominator, rows):
            grads, (sums, maxima) = jax.grad(loss, has_aux=True)(params, rows, denominator)
            return (placement.for_accumulation(grads), sums), maxima

        (grads, sums), maxima = accumulate(
            microbatch,
            (placement.for_compute(params), denominator),
            rows,
            microbatch_size,
            num_rows,
            axis=axis,
            local=placement.accumulates_locally,
        )
        grads = placement.for_optimizer(grads)
        grad_norm = norm(grads)
        carry = _apply_where_learnt(optimizer, grads, opt_state, params, grad_norm != 0)
        return carry, (sums, maxima, grad_norm)

    (params, opt_state), per_minibatch = jax.lax.scan(update, (params, opt_state), indices)
    return params, opt_state, per_minibatch


def _apply_where_learnt(
    optimizer: optax.GradientTransformation | StackOptimizer,
    grads: Params,
    opt_state: Any,
    params: Params,
    learnt: Array,
) -> tuple[Params, Any]:
    """`apply_gradients`, but networks with nothing to learn stay; `learnt` is [] or [K]."""

    def choose(new: Array, old: Array) -> Array:
        if new.ndim < learnt.ndim:  # the count of updates of critics with a joint optimizer
            return jnp.where(jnp.any(learnt), new, old)
        of_networks = jnp.expand_dims(learnt, range(learnt.ndim, new.ndim))
        return jnp.where(of_networks, new, old)

    def apply() -> tuple[Params, Any]:
        return apply_gradients(optimizer, grads, opt_state, params)

    def apply_to_some() -> tuple[Params, Any]:
        if learnt.ndim == 0:
            return params, opt_state
        return jax.tree.map(choose, apply(), (params, opt_state))

    # A branch, so that rounding in a step where all learn does not depend on the other branch.
    return jax.lax.cond(jnp.all(learnt), apply, apply_to_some)
