"""What both updates share: minibatches, microbatches, the mesh and the optimizer."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax
from jaxtyping import Array, Int

from asyppo_jax.algorithm.batching.microbatches import accumulate
from asyppo_jax.algorithm.batching.rows import UpdateRows
from asyppo_jax.algorithm.optimizer import apply_gradients
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
    optimizer: optax.GradientTransformation,
    placement: Placement,
    microbatch_size: int,
    axis: int = 0,
) -> tuple[Params, Any, tuple[Metrics, Metrics, Array]]:
    """Parameters, optimizer state and statistics after one optimizer update per minibatch.

    A minibatch's gradient is summed over its microbatches. `read_minibatch` makes a minibatch from
    each entry of `indices`. Rows are along `axis`: 0 for one network, 1 for stacked critics, whose
    axis 0 is the critic. The statistics are, per minibatch, the (sums, maxima) of the loss's
    metrics and the gradient norm (one per critic for a stack).
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
        params, opt_state = apply_gradients(optimizer, grads, opt_state, params)
        return (params, opt_state), (sums, maxima, norm(grads))

    (params, opt_state), per_minibatch = jax.lax.scan(update, (params, opt_state), indices)
    return params, opt_state, per_minibatch
