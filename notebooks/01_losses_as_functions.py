# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # AsyPPO's loss, composed by hand
#
# Two critics, two answers of three tokens. Every number can be checked on paper; the paper is
# arXiv 2510.01656.

# %%
import jax
import jax.numpy as jnp

from asyppo_jax.ops.ensemble import disagreement_masks, value_mean_and_std
from asyppo_jax.ops.losses import asyppo_loss, clipped_surrogate
from asyppo_jax.ops.masked import sequence_mean_sum
from asyppo_jax.ops.returns import gae, place_reward

mask = jnp.array([[True, True, True], [True, True, False]])  # the second answer has two tokens
rewards = jnp.array([1.0, 0.0])
values = jnp.array(
    [
        [[0.5, 0.6, 0.9], [0.5, 0.2, 7.0]],  # the 7.0 is padding: it must not matter
        [[0.5, 0.4, 0.7], [0.3, 0.2, 9.0]],
    ]
)

# %% [markdown]
# The critics' mean is the value; their spread tells where they disagree.

# %%
value_mean, value_std = value_mean_and_std(values)
print("mean\n", value_mean)
print("std\n", value_std)

# %% [markdown]
# With γ = λ = 1 the advantage is what the answer earned less what was expected:
# 1 − 0.5, 1 − 0.5, 1 − 0.8 for the first answer, 0 − 0.4, 0 − 0.2 for the second.

# %%
token_rewards = jax.vmap(place_reward)(rewards, mask)
advantages = jax.vmap(lambda r, v, m: gae(r, v, m, gamma=1.0, gae_lambda=1.0))(
    token_rewards, value_mean, mask
)
print(advantages)
assert jnp.allclose(advantages, jnp.array([[0.5, 0.5, 0.2], [-0.4, -0.2, 0.0]]), atol=1e-6)

# %% [markdown]
# Of the five real tokens, the fifth with the lowest spread leaves the surrogate, the fifth with the
# highest leaves the entropy bonus. Ties are broken by the key.

# %%
advantage_mask, entropy_mask = disagreement_masks(
    value_std, mask, jax.random.key(0), advantage_mask_fraction=0.2, entropy_mask_fraction=0.2
)
print("advantage_mask\n", advantage_mask)
print("entropy_mask\n", entropy_mask)
assert advantage_mask.sum() == entropy_mask.sum() == 4

# %% [markdown]
# The loss per token, then the one reduction: 1/|o| over all real tokens, dropped ones included.


# %%
def loss(log_probs, entropy, advantage_mask):
    surrogate, _ = clipped_surrogate(
        log_probs, old_log_probs, advantages, clip_eps_low=0.2, clip_eps_high=0.2
    )
    per_token = asyppo_loss(surrogate, entropy, advantage_mask, entropy_mask, entropy_coef=1e-3)
    total, count = sequence_mean_sum(per_token, mask)
    return total / count


old_log_probs = jnp.full((2, 3), -1.0)
entropy = jnp.full((2, 3), 0.5)
gradient = jax.grad(loss)(old_log_probs, entropy, advantage_mask)
print("gradient by token\n", gradient)
assert jnp.all((gradient != 0) == (advantage_mask & (advantages != 0)))

# %% [markdown]
# A mask of your own is one argument: here, keep only tokens with a positive advantage.

# %%
own_mask = mask & (advantages > 0)
own = jax.grad(loss)(old_log_probs, entropy, own_mask)
print(own)
assert jnp.all((own != 0) == own_mask)
step = 1e-2  # the gradient against a difference quotient
nudge = jnp.zeros((2, 3)).at[0, 0].set(step)
quotient = (
    loss(old_log_probs + nudge, entropy, own_mask) - loss(old_log_probs - nudge, entropy, own_mask)
) / (2 * step)
assert jnp.allclose(quotient, own[0, 0], rtol=1e-2)
