"""Optax chains: one for the actor, and one per critic through `jax.vmap`."""

from typing import Any

import jax
import optax

from asyppo_jax.config import Config, OptimizerConfig
from asyppo_jax.types import Params


def learning_rate_schedule(config: OptimizerConfig) -> optax.Schedule:
    """The learning rate after n optimizer updates: a linear warm-up from 0, then `config.schedule`.

    With the learning rate η, w warm-up updates, d decay updates, the final fraction f, and the
    progress p = min((n − w) / d, 1):

        "constant"  η
        "linear"    η · (1 − p·(1 − f))
        "cosine"    η · (f + (1 − f)·(1 + cos πp)/2)   (arXiv 1608.03983, without restarts)
    """
    rate, warmup = config.learning_rate, config.warmup_steps
    if config.schedule == "constant":  # after its last step, a linear schedule stays where it is
        return optax.linear_schedule(0.0, rate, warmup) if warmup else optax.constant_schedule(rate)
    if config.schedule == "linear":
        decay = optax.linear_schedule(rate, config.final_fraction * rate, config.decay_steps)
    else:
        decay = optax.cosine_decay_schedule(rate, config.decay_steps, config.final_fraction)
    if warmup == 0:
        return decay
    return optax.join_schedules([optax.linear_schedule(0.0, rate, warmup), decay], [warmup])


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """AdamW (arXiv 1711.05101) after a clip of the gradients' global norm."""
    return optax.chain(
        optax.clip_by_global_norm(config.max_grad_norm),
        optax.adamw(
            learning_rate_schedule(config),
            b1=config.b1,
            b2=config.b2,
            eps=config.eps,
            weight_decay=config.weight_decay,
            mu_dtype=config.moment_dtype,
        ),
    )


def stack_optimizer(
    tx: optax.GradientTransformation, *, joint: bool
) -> optax.GradientTransformation:
    """One optimizer per critic: every leaf of `tx`'s state has a leading axis K.

    With `joint` the stack is optimized as one network: the gradient clip then uses the norm over
    all critics, so one critic's large gradient shrinks the updates of the others.
    """
    return tx if joint else optax.GradientTransformation(jax.vmap(tx.init), jax.vmap(tx.update))


def critic_optimizer(config: Config) -> optax.GradientTransformation:
    """The optimizer of a run's stacked critics."""
    joint = config.algorithm.critic_optimizer == "joint"
    tx = make_optimizer(config.critic_optimizer)
    if config.value.frozen == "attention":
        freeze = optax.masked(optax.set_to_zero(), is_attention)
        # Before: they take no part in the norm that is clipped. After: no weight decay.
        tx = optax.chain(freeze, tx, freeze)
    return stack_optimizer(tx, joint=joint)


def is_attention(params: Params) -> Params:
    """A tree of whether each leaf belongs to an attention layer."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: any(getattr(key, "key", None) == "attention" for key in path), params
    )


def apply_gradients(
    tx: optax.GradientTransformation, grads: Params, opt_state: Any, params: Params
) -> tuple[Params, Any]:
    """The updated parameters and optimizer state."""
    updates, opt_state = tx.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state
