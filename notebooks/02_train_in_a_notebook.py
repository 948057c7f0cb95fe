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
# # Train in a notebook
#
# The quickstart (a tiny actor that adds one-digit numbers, two critics of half its depth) with your
# own reward and your own loss, and a plot that is updated during the run. About a minute on two CPU
# cores.

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
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from asyppo_jax import clipped_surrogate, default_config, loss_rows
from asyppo_jax.runs.metrics import read_metrics
from asyppo_jax.runs.rollout_files import read_rollout_file
from asyppo_jax.train import train
from configs import quickstart

RUNS = Path("runs")
NUM_STEPS = 12

# %% [markdown]
# ## A reward function
#
# It takes the problem, the completion and the reference answer as strings and returns a score in
# [0, 1]. If it raises or hangs, that answer is excluded from the loss. This one also rewards
# answers that are nearly right.


# %%
def close_counts(problem: str, completion: str, answer: str) -> float:
    """1 for the right sum, 0.5 if it is off by one, 0.25 if it is off by two, else 0."""
    import re

    match = re.search(r"boxed\{(\d+)\}", completion)
    distance = abs(int(match[1]) - int(answer)) if match else None
    return {0: 1.0, 1: 0.5, 2: 0.25}.get(distance, 0.0)


for completion in (r"7+5=12 \boxed{12}", r"\boxed{11}", "about twelve"):
    print(f"{completion:20} {close_counts('7+5', completion, '12')}")
assert close_counts("7+5", r"\boxed{11}", "12") == 0.5

# %% [markdown]
# Rewards are computed in separate processes, which are killed if they hang. The function is sent to
# them, so it may be defined here.
#
# ## A loss
#
# It takes arrays [R, n]: the log-probs and entropies under the current policy, and `rows` with old
# log-probs, advantages and both masks. It returns one number per token. This one is AsyPPO's, with
# a bonus that fades where the policy has moved away from the sampler's.


# %%
def fading_bonus(log_probs, entropy, rows, config):
    """−[ I^A·min(ρA, clip(ρ)A) + β·I^H·H·min(ρ, 1/ρ) ], with no gradient through the weight."""
    surrogate, ratio = clipped_surrogate(
        log_probs,
        rows.old_log_probs,
        rows.advantages,
        clip_eps_low=config.clip_eps_low,
        clip_eps_high=config.clip_eps_high,
    )
    weight = jax.lax.stop_gradient(jnp.minimum(ratio, 1 / ratio))
    bonus = config.entropy_coef * weight * entropy
    policy = jnp.where(rows.advantage_mask, surrogate, 0.0)
    return -(policy + jnp.where(rows.entropy_mask, bonus, 0.0))


# %% [markdown]
# The gradient by hand, for one row of three tokens on which the policy has not moved (ρ = 1). The
# second token is masked out of the policy loss, the third out of the bonus: the gradient by log π
# is −A where I^A is true, and the gradient by H is −β where I^H is true.

# %%
example = loss_rows(
    old_log_probs=jnp.array([[-1.0, -2.0, -0.5]]),
    advantages=jnp.array([[0.5, 1.0, -2.0]]),
    mask=jnp.array([[True, True, True]]),
    advantage_mask=jnp.array([[True, False, True]]),
    entropy_mask=jnp.array([[True, True, False]]),
)
options = default_config().algorithm
options.entropy_coef = 0.01
by_log_prob, by_entropy = jax.grad(
    lambda log_probs, entropy: jnp.sum(fading_bonus(log_probs, entropy, example, options)), (0, 1)
)(example.old_log_probs, jnp.ones((1, 3)))
np.testing.assert_allclose(by_log_prob, [[-0.5, 0.0, 2.0]])
np.testing.assert_allclose(by_entropy, [[-0.01, -0.01, 0.0]], rtol=1e-6)
print("gradient by log π", by_log_prob, " by H", by_entropy)

# %%
settings = quickstart.get_config()  # can be edited; setting an unknown name is an error
settings.num_steps = NUM_STEPS
settings.evaluation.every = 0  # evaluate only before the first step and after the last
settings.log.tensorboard = False
settings.log.rollouts_every = NUM_STEPS  # save the last rollout, token by token

# %% [markdown]
# ## Run it and watch
#
# `train` runs in a thread and writes its metrics to a file; this cell plots them. `train` resumes
# an interrupted run from its last checkpoint, but this cell deletes the old run and starts a new
# one.

# %%
PANELS = {
    "reward": {"rollout/reward_mean": "sampled", "evaluate/accuracy": "held out"},
    "completion length, tokens": {"rollout/completion_length_mean": "mean"},
    "explained variance": {f"critic/explained_variance_{k}": f"critic {k}" for k in range(2)},
    "entropy, nats": {"actor/entropy": "actor"},
}


def draw(rows):
    figure, axes = plt.subplots(1, len(PANELS), figsize=(12, 2.6), layout="constrained")
    for ax, (title, names) in zip(axes, PANELS.items(), strict=True):
        for name, label in names.items():
            points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
            ax.plot(*zip(*points, strict=True) if points else ([], []), ".-", label=label)
        ax.set(title=title, xlabel="step", xlim=(0, NUM_STEPS))
        ax.legend(loc="best", fontsize="small")
    return figure


def show(figure):
    """In a notebook, shows the figure instead of the cell's previous output."""
    if "ipykernel" in sys.modules:
        from IPython.display import clear_output, display

        clear_output(wait=True)
        display(figure)
    plt.close(figure)


workdir = RUNS / "notebook"
shutil.rmtree(workdir, ignore_errors=True)
with ThreadPoolExecutor(1) as threads:
    training = threads.submit(train, settings, workdir, loss=fading_bonus, reward=close_counts)
    while not training.done():
        time.sleep(2)
        if (workdir / "metrics.jsonl").is_file():
            show(draw(read_metrics(workdir / "metrics.jsonl")))
summary = training.result()  # raises the run's exception, if it failed
show(draw(read_metrics(workdir / "metrics.jsonl")))
before, after = summary["accuracy_before"], summary["accuracy_after"]
print(f"mean reward on held-out problems {before:.3f} -> {after:.3f} in {summary['steps']} steps")

# %% [markdown]
# ## The answers now
#
# The first steps train only the critics. Then the actor learns that writing the steps helps.

# %%
(file,) = (workdir / "rollouts").glob("*.jsonl")
answers = read_rollout_file(file)
for answer in answers[::8]:
    print(f"{answer.prompt}{''.join(answer.token_texts)}   reward {answer.reward}")

# %% [markdown]
# To see the same file as a page, with values, σ, masks and entropy of every token:
#
#     python -m experiments.inspect --rollouts=runs/notebook/rollouts
#
# `03_look_inside_the_critics` and `04_evaluate_a_checkpoint` use this run.
