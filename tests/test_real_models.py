"""Real weights: the greedy continuations of transformers on 20 GSM8K problems, token by token.

The expected tokens are in fixtures/real_model_greedy.json (make_real_model_greedy.py wrote them);
the weights come from `python -m experiments.real_model.fetch`.
"""

import json
import os
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asyppo_jax.models.actor_critic import Actor, Networks
from asyppo_jax.models.formats.huggingface import load_config, load_params
from asyppo_jax.sampling import sample
from asyppo_jax.tasks.prompts import Prompt, pad_prompts
from asyppo_jax.tasks.records import Record
from tests.tiny import make_options

pytestmark = pytest.mark.real_model

FIXTURE = Path(__file__).parent / "fixtures" / "real_model_greedy.json"
MODELS = Path(os.environ.get("ASYPPO_MODELS", Path.home() / ".cache/asyppo_jax/models"))
# Where the two likeliest tokens are closer than this, rounding decides, here as there.
NEAR_TIE = 2e-3


@pytest.mark.parametrize("name", ["smollm2-135m-instruct", "qwen2.5-coder-0.5b-instruct"])
def test_greedy_continuations_equal_those_of_transformers(name):
    directory = MODELS / name
    if not directory.is_dir():
        pytest.skip(f"{directory} is missing: run python -m experiments.real_model.fetch")
    expected = json.loads(FIXTURE.read_text())
    if name not in expected:
        pytest.skip(f"{FIXTURE.name} has no continuations of {name}")
    rows = expected[name]
    config = load_config(str(directory))
    params = jax.tree.map(jnp.asarray, load_params(str(directory), config, "actor"))
    prompts = [Prompt(tuple(row["prompt_tokens"]), Record("", "")) for row in rows]
    width = max(len(prompt.tokens) for prompt in prompts)
    options = make_options(1, 64, temperature=0.0)
    program = jax.jit(partial(sample, networks=Networks(Actor(config), None), options=options))
    rollout = program(params, pad_prompts(prompts, width, 0), jax.random.key(0))
    differing = []
    for number, (row, tokens) in enumerate(
        zip(rows, np.asarray(rollout.tokens)[:, width:], strict=True)
    ):
        different = np.flatnonzero(tokens != np.array(row["completion_tokens"]))
        if different.size and row["margins"][different[0]] > NEAR_TIE:
            differing.append((number, int(different[0]), row["margins"][different[0]]))
    assert len(rows) == 20
    assert not differing, f"(problem, position, margin of the top two logits): {differing}"
