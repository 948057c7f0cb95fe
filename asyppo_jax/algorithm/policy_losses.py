"""Policy losses: pure functions of per-token arrays, chosen by `config.algorithm.loss`.

A loss gets the log-probs and entropies of R rows with n completion tokens, what the update knows of
them (`UpdateRows`: old log-probs, advantages, masks, ...), and the run's `AlgorithmConfig`. It
returns one number per token, to be minimised. `config.algorithm.loss_aggregation` makes them one
number, and the metrics are computed outside, so a loss of your own needs neither.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from asyppo_jax.algorithm.batching.rows import UpdateRows
from asyppo_jax.config import AlgorithmConfig, ConfigError
from asyppo_jax.config.functions import function_name, named_function
from asyppo_jax.ops.losses import asyppo_loss, clipped_surrogate

PolicyLoss = Callable[
    [Float[Array, "R n"], Float[Array, "R n"], UpdateRows, AlgorithmConfig], Float[Array, "R n"]
]


def asyppo(
    log_probs: Float[Array, "R n"],
    entropy: Float[Array, "R n"],
    rows: UpdateRows,
    config: AlgorithmConfig,
) -> Float[Array, "R n"]:
    """AsyPPO (arXiv 2510.01656): −[ I^A·min(ρA, clip(ρ, 1−ε_low, 1+ε_high)·A) + β·I^H·H ].

    With one critic or none both masks keep every token, and this is PPO's and GRPO's loss.
    """
    surrogate, _ = clipped_surrogate(
        log_probs,
        rows.old_log_probs,
        rows.advantages,
        clip_eps_low=config.clip_eps_low,
        clip_eps_high=config.clip_eps_high,
    )
    return asyppo_loss(
        surrogate,
        entropy,
        rows.advantage_mask,
        rows.entropy_mask,
        entropy_coef=config.entropy_coef,
    )


LOSSES: dict[str, PolicyLoss] = {"asyppo": asyppo}


def resolve_loss(config: AlgorithmConfig) -> PolicyLoss:
    """The loss that `config.loss` names: one of `LOSSES`, or "module:function".

    Raises:
        ConfigError: there is no such function, or `check_loss` refuses it.
    """
    if config.loss in LOSSES:
        return LOSSES[config.loss]
    names = ", ".join(f'"{name}"' for name in LOSSES)
    return check_loss(named_function(config.loss, "config.algorithm.loss", names), config)


def check_loss(loss: PolicyLoss, config: AlgorithmConfig) -> PolicyLoss:
    """`loss`, after a call with the shapes of two rows of three tokens.

    Raises:
        ConfigError: the call fails, or does not return one number per token.
    """
    shape = (2, 3)
    dtypes = [jnp.int32] * 2 + [bool] + [jnp.float32] * 4 + [bool] * 2
    rows = UpdateRows(*(jnp.zeros(shape, dtype) for dtype in dtypes))
    numbers = rows.advantages
    name = f"the loss {function_name(loss)}"
    try:
        per_token = jax.eval_shape(lambda a, b, c: loss(a, b, c, config), numbers, numbers, rows)
    except Exception as error:  # whatever a function of the user's raises
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"{name} raised {type(error).__name__} ({reason}); it is called as "
            "loss(log_probs, entropy, rows, config) with arrays [R, n]"
        ) from error
    returned = getattr(per_token, "shape", type(per_token).__name__)
    if returned != shape:
        raise ConfigError(
            f"{name} returned {returned} for arrays of shape {shape}; return one number per token, "
            "which config.algorithm.loss_aggregation makes one number"
        )
    return loss
