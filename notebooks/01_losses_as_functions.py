# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # AsyPPO's loss, composed by hand
#
# Two critics and two answers, small enough to check every number by hand. The method is that of
# arXiv 2510.01656. At the end, your own mask replaces one of the paper's masks.

# %%
# On Colab this cell downloads and installs the project; elsewhere it finds the current checkout.
import os
import subprocess
import sys
from pathlib import Path

SOURCE = ""  # on Colab: the address of the project or a folder, as an argument of `git clone`
if "google.colab" in sys.modules:
    subprocess.run(["git", "clone", "--quiet", SOURCE, "asyppo_jax_checkout"], check=True)
    os.chdir("asyppo_jax_checkout")
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "-e", "."], check=True)
os.chdir(next(p for p in (Path.cwd(), *Path.cwd().parents) if (p / "configs").is_dir()))
sys.path.insert(0, os.getcwd())

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jax.test_util import check_grads

from asyppo_jax import (
    asyppo_loss,
    clipped_surrogate,
    disagreement_masks,
    gae,
    place_reward,
    sequence_mean_sum,
    value_mean_and_std,
)

mask = jnp.array([[True, True, True], [True, True, False]])  # the second answer has two tokens
rewards = jnp.array([1.0, 0.0])
values = jnp.array(
    [
        [[0.5, 0.6, 0.9], [0.5, 0.2, 7.0]],  # the 7.0 is padding and must not matter
        [[0.5, 0.4, 0.5], [0.3, 0.2, 9.0]],
    ]
)

# %% [markdown]
# The value is the mean over the critics. Their standard deviation σ measures their disagreement.

# %%
value_mean, value_std = value_mean_and_std(values)
print("mean\n", value_mean)
print("std\n", value_std)

# %% [markdown]
# With γ = λ = 1 the advantage is the reward minus the value:
# 1 − 0.5, 1 − 0.5, 1 − 0.7 for the first answer, 0 − 0.4, 0 − 0.2 for the second.

# %%
token_rewards = jax.vmap(place_reward)(rewards, mask)
advantages = jax.vmap(lambda r, v, m: gae(r, v, m, gamma=1.0, gae_lambda=1.0))(
    token_rewards, value_mean, mask
)
print(advantages)
assert jnp.allclose(advantages, jnp.array([[0.5, 0.5, 0.3], [-0.4, -0.2, 0.0]]), atol=1e-6)

# %% [markdown]
# There are five real tokens, and each mask drops a fifth of them, one token. The token with the
# lowest σ is masked out of the policy loss, the token with the highest σ out of the entropy bonus.
# Two tokens have σ = 0; the key breaks such ties at random.

# %%
advantage_mask, entropy_mask = disagreement_masks(
    value_std, mask, jax.random.key(0), advantage_mask_fraction=0.2, entropy_mask_fraction=0.2
)
print("advantage_mask\n", advantage_mask)
print("entropy_mask\n", entropy_mask)
assert advantage_mask.sum() == entropy_mask.sum() == 4
assert not entropy_mask[0, 2]  # σ = 0.2, the largest

# %% [markdown]
# The loss per token is reduced with the weight 1/|o|, where |o| counts all real tokens, including
# the dropped ones. Before the first update the ratio is 1, so the gradient with respect to log π is
# −I^A·A/(|o|·B). A dropped token has gradient 0, and the others are weighted as without the mask.


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
lengths = mask.sum(axis=1, keepdims=True)
by_hand = -jnp.where(advantage_mask, advantages, 0) / (lengths * 2)
print("gradient per token\n", gradient)
assert jnp.allclose(gradient, by_hand, atol=1e-6)

# %% [markdown]
# Everything in one figure. Padding is white.


# %%
def picture(rows):
    """Draws a table of tokens for each (title, numbers [2, 3]), each with its own colour scale."""
    _, axes = plt.subplots(1, len(rows), figsize=(2.4 * len(rows), 1.7), layout="constrained")
    for ax, (title, numbers) in zip(axes, rows, strict=True):
        shown = np.ma.masked_where(~np.asarray(mask), np.asarray(numbers, float))
        size = abs(shown).max() or 1.0
        ax.imshow(shown, cmap="PuOr", vmin=-2 * size, vmax=2 * size, aspect="auto")
        for row, column in np.argwhere(np.asarray(mask)):
            ax.text(column, row, f"{shown[row, column] + 0:.2g}", ha="center", va="center")
        ax.set(title=title, xticks=range(3), yticks=range(2))
        ax.set_yticklabels(["answer 1", "answer 2"] if ax is axes[0] else [])
    plt.show()


picture(
    [
        ("value", value_mean),
        ("σ", value_std),
        ("advantage", advantages),
        ("advantage_mask", advantage_mask),
        ("gradient", gradient),
    ]
)

# %% [markdown]
# ## Your own mask
#
# A mask is one argument of the loss. This one trains only on tokens with a positive advantage. The
# gradient is checked against finite differences, at ratios other than 1, one of which is clipped.

# %%
own_mask = mask & (advantages > 0)
own_gradient = jax.grad(loss)(old_log_probs, entropy, own_mask)
assert jnp.all((own_gradient != 0) == own_mask)
moved = old_log_probs + jnp.array([[0.05, 0.4, -0.1], [0.1, -0.1, 0.0]])
check_grads(
    lambda x: loss(jnp.array(x), entropy, own_mask), (moved,), order=1, modes=["rev"], eps=1e-2
)
off_policy = jax.grad(loss)(moved, entropy, own_mask)
assert off_policy[0, 1] == 0  # ratio e^0.4 > 1.2 with a positive advantage: clipped
picture([("own mask", own_mask), ("gradient", own_gradient), ("off policy", off_policy)])
print("the gradient and the finite differences agree")
