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
# # Evaluate a checkpoint
#
# A trained actor beside the one that it started from: avg@k with a 95% interval, pass@k, lengths.

# %%
# On Colab this cell fetches and installs the project; elsewhere it finds the checkout it is in.
import os
import subprocess
import sys
from pathlib import Path

SOURCE = ""  # on Colab: what `git clone` takes, the address of the project or a folder of yours
if "google.colab" in sys.modules:
    subprocess.run(["git", "clone", "--quiet", SOURCE, "asyppo_jax_checkout"], check=True)
    os.chdir("asyppo_jax_checkout")
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "-e", "."], check=True)
os.chdir(next(p for p in (Path.cwd(), *Path.cwd().parents) if (p / "configs").is_dir()))
sys.path.insert(0, os.getcwd())

# %%
import matplotlib.pyplot as plt
import numpy as np

from asyppo_jax import from_config_dict, load_actor
from asyppo_jax.evaluation.statistics import (
    average_at_k,
    average_interval,
    pass_at_k,
    powers_of_two,
)
from asyppo_jax.runs.checkpoint import is_run
from asyppo_jax.tasks.records import load_records
from asyppo_jax.tasks.rewards import exact
from asyppo_jax.train import train
from configs import quickstart

# %%
RUNS = Path("runs")
NUM_STEPS = 12
WORKDIR = str(RUNS / "notebook")  # or any run of yours
if not is_run(WORKDIR):  # 02_train_in_a_notebook makes it; without it, one minute here
    settings = quickstart.get_config()
    settings.num_steps = NUM_STEPS
    settings.evaluation.every = 0
    settings.log.tensorboard = False
    train(from_config_dict(settings), WORKDIR)

# %% [markdown]
# ## Load
#
# `step="best"` is the best by held-out accuracy of the checkpoints that the run kept. A Hugging
# Face directory or hub name loads in the same way; only parameters are read, never an optimiser.

# %%
trained = load_actor(WORKDIR, step="best")
config = trained.config
actors = {"base": load_actor(config.actor.path), f"step {trained.step}": trained}

# %% [markdown]
# ## Sample and grade
#
# Eight answers to each of 64 problems that the run has never seen, with the training's sampler. The
# prompt is the run's for both.

# %%
NUM_SAMPLES = 8
records = load_records(config.eval_data)[:64]
completions, right = {}, {}
for name, actor in actors.items():
    completions[name] = actor.generate(
        [record.problem for record in records],
        num_samples=NUM_SAMPLES,
        max_completion_length=config.sampling.max_completion_length,
        prompt=config.prompt,
        seed=0,
    )
    right[name] = np.array(
        [
            [exact(record.problem, completion, record.answer) for completion in some]
            for record, some in zip(records, completions[name], strict=True)
        ]
    )
    low, high = average_interval(right[name])
    print(
        f"{name:8} avg@{NUM_SAMPLES} {average_at_k(right[name]):.3f}  95% [{low:.3f}, {high:.3f}]"
    )

# %% [markdown]
# The interval counts problems, not answers: eight answers to one problem resemble each other.
# pass@k is the unbiased estimate of arXiv 2107.03374: what k draws would find, at least once.

# %%
figure, (accuracy, passing, lengths) = plt.subplots(1, 3, figsize=(11, 3), layout="constrained")
ks = powers_of_two(NUM_SAMPLES)
for i, (name, scores) in enumerate(right.items()):
    average, (low, high) = average_at_k(scores), average_interval(scores)
    accuracy.bar(name, average, color=f"C{i}", alpha=0.6)
    accuracy.errorbar(
        name, average, yerr=[[average - low], [high - average]], color="black", capsize=4
    )
    found = [pass_at_k(NUM_SAMPLES, scores.sum(axis=1).astype(int), k) for k in ks]
    passing.plot(ks, found, "o-", color=f"C{i}", label=name)
    characters = [len(one) for some in completions[name] for one in some]
    lengths.hist(characters, bins=range(0, 64, 4), color=f"C{i}", alpha=0.6, label=name)
accuracy.set(title=f"avg@{NUM_SAMPLES}, 95% interval", ylim=(0, 1))
passing.set(title="pass@k", xlabel="k", ylim=(0, 1.05), xticks=ks)
lengths.set(title="length of an answer", xlabel="characters")
passing.legend(loc="lower right")
lengths.legend()
plt.show()

# %% [markdown]
# ## Read some
#
# Numbers hide what changed; the answers show it.

# %%
for i, record in enumerate(records[:4]):
    print(f"{record.problem} = {record.answer}")
    for name, all_texts in completions.items():
        print(f"  {name:8} {all_texts[i][0]:50} {'right' if right[name][i, 0] else 'wrong'}")

# %% [markdown]
# ## The paper's benchmarks
#
# From the command line, with every answer and its verdict in a file, and resumable:
#
#     python -m experiments.evaluate --checkpoint=DIR_OR_NAME --benchmark=math500,amc23 --samples=4
