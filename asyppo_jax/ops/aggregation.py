"""From per-token losses to one number: Σ_i Σ_t n_{i,t} · l_{i,t} / d.

`config.algorithm.loss_aggregation` chooses the length normalizer n and the denominator d:

    "sequence"  n = 1/|o_i|  d = number of sequences   AsyPPO (arXiv 2510.01656), GRPO (2402.03300)
    "token"     n = 1        d = number of tokens      DAPO (arXiv 2503.14476)
    "constant"  n = 1/C      d = number of sequences   Dr.GRPO (arXiv 2503.20783)

|o_i| counts all real tokens of sequence i, also those that a mask drops from a term of the loss.
"""

from typing import Literal, get_args

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from asyppo_jax.ops.checks import check_arrays, check_choice
from asyppo_jax.ops.masked import inverse_length

Aggregation = Literal["sequence", "token", "constant"]


@check_arrays
def length_normalizer(
    mask: Bool[Array, "B C"], aggregation: Aggregation = "sequence"
) -> Float[Array, "B C"]:
    """n_{i,t}, the factor of each real token: 1/|o_i|, 1 or 1/C; 0 on padding.

    In this order "sequence" (arXiv 2510.01656), "token" (DAPO, 2503.14476) and "constant" (Dr.GRPO,
    2503.20783). |o_i| is the number of real tokens of sequence i, C that of positions. A token has
    the same factor in another row or microbatch.

    Raises:
        ValueError: there is no such aggregation.
    """
    check_choice("aggregation", aggregation, get_args(Aggregation))
    if aggregation == "sequence":
        return inverse_length(mask)
    weight = 1.0 if aggregation == "token" else 1.0 / mask.shape[-1]
    return mask * jnp.float32(weight)


@check_arrays
def loss_denominator(
    mask: Bool[Array, "B C"], aggregation: Aggregation = "sequence"
) -> Float[Array, ""]:
    """d: the number of real tokens with "token", else of sequences that have one; at least 1.

    Raises:
        ValueError: there is no such aggregation.
    """
    check_choice("aggregation", aggregation, get_args(Aggregation))
    counted = mask if aggregation == "token" else jnp.any(mask, axis=-1)
    return jnp.maximum(jnp.sum(counted), 1).astype(jnp.float32)
