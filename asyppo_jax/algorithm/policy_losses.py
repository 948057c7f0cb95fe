"""Policy losses: pure functions of per-token arrays, chosen by `config.algorithm.loss`.

A loss gets the log-probs and entropies of R rows with n completion tokens, what the update knows of
them (`UpdateRows`: old log-probs, advantages, masks, ...), and the run's `AlgorithmConfig`. It
returns one number per token, to be minimised. `config.algorithm.loss_aggregation` makes them one
number, and the metrics are computed outside, so a loss of your own needs neither.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from asyppo_jax.algorithm.batching.rows import UpdateRows, loss_rows
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

    Where nothing is ranked (`config.ranks_tokens` is false) both masks keep every token, and this
    is PPO's and GRPO's loss. With `config.dual_clip` the surrogate of bad tokens is bounded below
    (arXiv 1912.09729).
    """
    surrogate, _ = clipped_surrogate(
        log_probs,
        rows.old_log_probs,
        rows.advantages,
        clip_eps_low=config.clip_eps_low,
        clip_eps_high=config.clip_eps_high,
        dual_clip=config.dual_clip,
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


@jax.ensure_compile_time_eval()  # a step that is being traced may resolve its loss, too
def check_loss(loss: Any, config: AlgorithmConfig) -> PolicyLoss:
    """`loss`, after a call with two rows of three tokens.

    Raises:
        ConfigError: it is no function, the call fails, it does not return one number per token, or
            it depends on neither log-probs nor entropies.
    """
    if not callable(loss):
        raise ConfigError(
            f"the loss is {loss!r}; give the function itself, or its name as config.algorithm.loss"
        )
    shape = (2, 3)
    numbers, advantages = jnp.ones(shape), jnp.array([[1.0, -1.0, 2.0], [-2.0, 0.5, -0.5]])
    rows = loss_rows(numbers, advantages, jnp.ones(shape, bool)).replace(
        returns=numbers,  # a loss may be a multiple of them, and must not look like 0 for that
        reference_log_probs=numbers - 0.5 if config.kl_coef else None,
    )
    name = f"the loss {function_name(loss)}"
    try:
        per_token = jax.eval_shape(lambda a, b, c: loss(a, b, c, config), numbers, numbers, rows)
    except Exception as error:  # whatever a function of the user's raises
        kind, reason = type(error).__name__, " ".join(str(error).split())[:300]
        if kind.startswith("Tracer"):
            raise ConfigError(
                f"{name} raised {kind}, because it is compiled by JAX: use jax.numpy in place of "
                "numpy, and jnp.where in place of `if`"
            ) from error
        raise ConfigError(f"{name} raised {kind} ({reason}); {_advice(error, rows)}") from error
    returned = getattr(per_token, "shape", type(per_token).__name__)
    if returned != shape:
        raise ConfigError(
            f"{name} returned {returned} for arrays of shape {shape}; return one number per token, "
            "which config.algorithm.loss_aggregation makes one number"
        )
    if not jnp.issubdtype(per_token.dtype, jnp.floating):
        raise ConfigError(f"{name} returned {per_token.dtype} numbers; return floats")
    function = cast(PolicyLoss, loss)
    total = lambda a, b: jnp.sum(function(a, b, rows, config))  # noqa: E731
    gradients = jax.grad(total, argnums=(0, 1))(numbers, numbers)
    if all(not jnp.any(gradient) for gradient in gradients):
        raise ConfigError(
            f"{name} depends on neither log_probs nor entropy, so its gradient is 0; use them"
        )
    return function


def _advice(error: Exception, rows: UpdateRows) -> str:
    if "NoneType" in str(error):
        absent = [name for name, x in vars(rows).items() if x is None]
        advice = f"these are None: rows.{', rows.'.join(absent)}"
        if "reference_log_probs" in absent:
            advice += "; for reference_log_probs set config.algorithm.kl_coef above 0"
        return advice
    if isinstance(error, AttributeError) and isinstance(error.obj, UpdateRows):
        return f"rows has {', '.join(vars(rows))}"
    if isinstance(error, AttributeError) and isinstance(error.obj, AlgorithmConfig):
        return f"config has {', '.join(field.name for field in dataclasses.fields(error.obj))}"
    return "it is called as loss(log_probs, entropy, rows, config) with arrays [R, n]"
