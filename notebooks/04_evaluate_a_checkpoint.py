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
# Compares a trained actor with the model that it started from: avg@k with a 95% confidence
# interval, pass@k, and the lengths of the answers.

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
WORKDIR = str(RUNS / "notebook")  # or any other run
if not is_run(WORKDIR):  # 02_train_in_a_notebook was not run: train here, in about a minute
    settings = quickstart.get_config()
    settings.num_steps = NUM_STEPS
    settings.evaluation.every = 0
    settings.log.tensorboard = False
    train(from_config_dict(settings), WORKDIR)

# %% [markdown]
# ## Load
#
# `step="best"` loads the saved checkpoint with the best held-out reward. A Hugging Face directory
# or hub name is loaded in the same way. Only parameters are read, not the optimizer state.

# %%
trained = load_actor(WORKDIR, step="best")
config = trained.config
actors = {"base": load_actor(config.actor.path), f"step {trained.step}": trained}

# %% [markdown]
# ## Sample and grade
#
# Eight answers to each of 64 held-out problems, with the sampler used in training. Both models get
# the prompt template of the run.

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
            [exact(record.problem, completion, record.answer) for completion in samples]
            for record, samples in zip(records, completions[name], strict=True)
        ]
    )
    low, high = average_interval(right[name])
    print(
        f"{name:8} avg@{NUM_SAMPLES} {average_at_k(right[name]):.3f}  95% [{low:.3f}, {high:.3f}]"
    )

# %% [markdown]
# The interval treats problems, not answers, as independent samples, because answers to the same
# problem are similar. pass@k is the unbiased estimate (arXiv 2107.03374) of the probability that at
# least one of k answers is right.

# %%
figure, (accuracy, passing, lengths) = plt.subplots(1, 3, figsize=(11, 3), layout="constrained")
ks = powers_of_two(NUM_SAMPLES)
for i, (name, scores) in enumerate(right.items()):
    average, (low, high) = average_at_k(scores), average_interval(scores)
    accuracy.bar(name, average, color=f"C{i}", alpha=0.6)
    accuracy.errorbar(
        name, average, yerr=[[average - low], [high - average]], color="black", capsize=4
    )
    estimates = [pass_at_k(NUM_SAMPLES, scores.sum(axis=1).astype(int), k) for k in ks]
    passing.plot(ks, estimates, "o-", color=f"C{i}", label=name)
    characters = [len(text) for samples in completions[name] for text in samples]
    lengths.hist(characters, bins=range(0, 64, 4), color=f"C{i}", alpha=0.6, label=name)
accuracy.set(title=f"avg@{NUM_SAMPLES}, 95% interval", ylim=(0, 1))
passing.set(title="pass@k", xlabel="k", ylim=(0, 1.05), xticks=ks)
lengths.set(title="length of an answer", xlabel="characters")
passing.legend(loc="lower right")
lengths.legend()
plt.show()

# %% [markdown]
# ## Read some answers
#
# The answers show what has changed.

# %%
for i, record in enumerate(records[:4]):
    print(f"{record.problem} = {record.answer}")
    for name, all_texts in completions.items():
        print(f"  {name:8} {all_texts[i][0]:50} {'right' if right[name][i, 0] else 'wrong'}")

# %% [markdown]
# ## The paper's benchmarks
#
# Evaluate from the command line. Every answer and its score are written to a file, and an
# interrupted evaluation can be resumed:
#
#     python -m experiments.evaluate --checkpoint=DIR_OR_NAME --benchmark=math500,amc23 --samples=4
