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
# # Look inside the critics
#
# A checkpoint's actor answers a few problems. For every token of the answers this notebook shows
# the critics' values, their disagreement σ, the advantage, and whether the two masks drop the
# token.

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
from functools import partial

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle

from asyppo_jax import (
    from_config_dict,
    load_actor,
    load_critics,
    make_experience,
    sample_states,
    value_errors,
    values_at,
)
from asyppo_jax.algorithm.forward import value_anchor
from asyppo_jax.evaluation.value_plot import value_figure
from asyppo_jax.runs.checkpoint import is_run
from asyppo_jax.runs.rollout_files import token_texts
from asyppo_jax.sampling.sampler import read_answers, training_options
from asyppo_jax.tasks.prompts import make_prompts
from asyppo_jax.tasks.records import load_records
from asyppo_jax.tasks.rewards import RewardPool, exact
from asyppo_jax.tasks.tokenizers import pad_token_id, stop_token_ids
from asyppo_jax.train import train
from configs import quickstart

# %%
RUNS = Path("runs")
NUM_STEPS = 12
WORKDIR = str(RUNS / "notebook")  # or any other run
if not is_run(WORKDIR):  # 02_train_in_a_notebook was not run: train here, in about a minute
    settings = quickstart.get_config()
    settings.num_steps = NUM_STEPS
    settings.evaluation.every = 0
    settings.log.tensorboard = False
    train(from_config_dict(settings), WORKDIR)

# %% [markdown]
# ## Load, sample, score
#
# `sampler` is the one used in training. It returns a `Rollout` with the tokens, masks and log-probs
# of all answers.

# %%
actor, critics = load_actor(WORKDIR), load_critics(WORKDIR)
config, tokenizer = actor.config, actor.tokenizer
print(f"step {actor.step}, {critics.num_critics} critics")

prompts, _ = make_prompts(load_records(config.eval_data)[:16], tokenizer, config.prompt)
stop_ids = stop_token_ids(tokenizer, config.actor.path, config.sampling.stop_tokens)
options = training_options(config, stop_ids, pad_token_id(tokenizer))
sampler = actor.sampler(options, config.prompt.max_length)
with jax.set_mesh(actor.mesh):
    rollout = sampler(actor.params, prompts, jax.random.key(1), actor.mesh)
answers = read_answers(rollout, prompts, sampler)
scores = map(exact, answers.problems, answers.completions, answers.answers)
rollout = rollout.replace(
    rewards=jnp.array(list(scores)), reward_valid=jnp.ones(len(answers.problems), bool)
)
print(f"{len(answers.problems)} answers, {float(rollout.rewards.mean()):.0%} of them right")

# %% [markdown]
# ## Values and masks
#
# `critics.values` gives V after each token. The value *before* a token is sampled is the value
# after the previous token, so the completion's values start at the last token of the prompt.

# %%
length = rollout.completion_mask.shape[1]
mask = jnp.concatenate([rollout.prompt_mask, rollout.completion_mask], axis=1)
anchor = value_anchor(rollout, config.sampling.group_size, config.value.anchor)  # None: no anchor
values = critics.values(rollout.tokens, mask, anchor=anchor)[:, :, -length - 1 : -1]  # [K, B, C]
experience = jax.jit(
    partial(make_experience, group_size=config.sampling.group_size, config=config.algorithm)
)(rollout, values, jax.random.key(0))
real = np.asarray(rollout.completion_mask)
dropped = 1 - experience.advantage_mask.sum() / real.sum()
print(f"{dropped:.1%} of {real.sum()} tokens are masked out of the policy loss")
assert abs(dropped - config.algorithm.advantage_mask_fraction) < 0.01

# %% [markdown]
# ## Over the tokens of an answer
#
# One wrong and one right answer, if there are both. Tokens on which the critics agree most are
# masked out of the policy loss (struck through); tokens on which they disagree most are masked out
# of the entropy bonus (framed).


# %%
def strip(ax, row, numbers, title, cmap, low, high):
    """Draws the tokens of an answer side by side, coloured by `numbers`."""
    count = int(real[row].sum())
    texts = token_texts(tokenizer, rollout.tokens[row, -length:][:count].tolist())
    scale = plt.Normalize(low, high)
    x = 0.0
    for i, text in enumerate(texts):
        width = max(len(text), 1)
        colour = cmap(scale(float(numbers[row, i])))
        ax.add_patch(Rectangle((x, 0), width, 1, color=colour, linewidth=0))
        if not experience.entropy_mask[row, i]:
            ax.add_patch(Rectangle((x + 0.06, 0.04), width - 0.12, 0.92, fill=False))
        if not experience.advantage_mask[row, i]:
            ax.plot([x + 0.1, x + width - 0.1], [0.5, 0.5], color="black", linewidth=1)
        dark = np.dot(colour[:3], (0.3, 0.6, 0.1)) < 0.5
        ax.text(
            x + width / 2,
            0.46,
            text,
            ha="center",
            va="center",
            color="white" if dark else "black",
            family="monospace",
            fontsize=8,
        )
        x += width
    ax.set(xlim=(0, 64), ylim=(0, 1), xticks=[], yticks=[])
    ax.set_ylabel(title, rotation=0, ha="right", va="center")
    ax.spines[:].set_visible(False)


def look_at(row):
    mean, size = values.mean(axis=0), float(abs(experience.advantages).max())
    _, axes = plt.subplots(
        4, 1, figsize=(11, 3.4), layout="constrained", height_ratios=[3, 1, 1, 1]
    )
    count, line = int(real[row].sum()), axes[0]
    for k in range(critics.num_critics):
        line.plot(values[k, row, :count], ".-", linewidth=1, label=f"critic {k}")
    line.plot(experience.returns[row, :count], color="grey", linewidth=1, label="return")
    line.set(ylabel="value", xlabel="token", ylim=(-0.2, 1.2), xlim=(-0.5, count - 0.5))
    line.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize="small")
    line.set_title(f"{answers.problems[row]}: reward {float(rollout.rewards[row]):g}")
    strip(axes[1], row, mean, "value", plt.get_cmap("Blues"), -0.2, 1.6)
    high = float(np.quantile(np.asarray(experience.value_std)[real], 0.98))
    strip(axes[2], row, experience.value_std, "σ", plt.get_cmap("Greens"), 0, 1.4 * high)
    strip(axes[3], row, experience.advantages, "advantage", plt.get_cmap("PuOr"), -size, size)
    plt.show()


rewards, lengths = np.asarray(rollout.rewards), real.sum(axis=1)
for reward in (0, 1):
    rows = np.flatnonzero(rewards == reward)
    if rows.size:
        look_at(rows[np.argsort(lengths[rows])[rows.size // 2]])  # an answer of median length

# %% [markdown]
# ## Over all answers
#
# Where in an answer do the critics disagree, and are their values right on average?

# %%
std, mean = np.asarray(experience.value_std)[real], np.asarray(values.mean(axis=0))[real]
position = (np.arange(length) / lengths[:, None])[real]
outcome = np.broadcast_to(rewards[:, None], real.shape)[real]
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 2.8), layout="constrained")
edges = np.linspace(0, 1, 11)
tenth = np.digitize(position, edges[1:-1])
left.bar(edges[:-1] + 0.05, [std[tenth == b].mean() for b in range(10)], width=0.08)
left.set(xlabel="place in the answer (0: first token)", ylabel="mean σ")
bins = np.digitize(mean, edges[1:-1])
large = [b for b in range(10) if (bins == b).sum() >= 10]
right.plot([0, 1], [0, 1], color="grey", linewidth=1)
right.plot([mean[bins == b].mean() for b in large], [outcome[bins == b].mean() for b in large], "o")
right.set(xlabel="value", ylabel="reward in the end", xlim=(-0.05, 1.05), ylim=(-0.05, 1.05))
plt.show()

# %% [markdown]
# ## Do they know something?
#
# The value of a state is the mean reward of its continuations, and that can be sampled: from
# prefixes of answers, with the same sampler. The dashed line is what the mean reward of all answers
# would be wrong by, the red one what the mean reward of the group's other answers (GRPO's baseline)
# is wrong by. `python -m experiments.value_truth` does the same with more samples.

# %%
with RewardPool(config.reward, exact) as pool:
    states = sample_states(actor, prompts[:8], pool, group_size=8, continuations=16)
positions = value_errors(states, values_at(critics, states), config.algorithm)
value_figure(positions, f"{states.values.size} states of known value")

# %% [markdown]
# Rollouts saved by a run (`config.log.rollouts_every`) can be shown in a browser in the same way:
# `python -m experiments.inspect --rollouts=runs/notebook/rollouts`.
