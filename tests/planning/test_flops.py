"""The FLOPs by formula equal those of the compiled program."""

import dataclasses
from functools import partial

import jax
import pytest

from asyppo_jax.algorithm.state import create_train_state
from asyppo_jax.algorithm.train_step import train_step
from asyppo_jax.models.actor_critic import Actor, Critic, Networks
from asyppo_jax.planning.flops import phase_costs, sizes_of
from asyppo_jax.planning.hlo import dot_flops, read_program
from asyppo_jax.planning.phases import rollout_shapes
from asyppo_jax.runtime.sharding import make_mesh
from tests.tiny import QWEN3, make_config

WIDE = dataclasses.replace(QWEN3, vocab_size=512, embed_dim=128, mlp_dim=384, head_dim=32)


@pytest.mark.parametrize(
    ("remat", "changes"),
    [
        ("none", {"batching__rows_per_prompt": 4, "batching__logits_chunk": 48}),
        pytest.param(
            "none",
            {"value__reference_answer": "{answer}", "value__reference_max_length": 40},
            marks=pytest.mark.slow,
        ),
        pytest.param("none", {}, marks=pytest.mark.slow),
        pytest.param("dots", {}, marks=pytest.mark.slow),
        pytest.param("attention_gate", {}, marks=pytest.mark.slow),
        pytest.param("attention", {}, marks=pytest.mark.slow),
        pytest.param("full", {}, marks=pytest.mark.slow),
        pytest.param(
            "none",
            {"algorithm__kl_coef": 0.1, "batching__logits_chunk": 48},
            marks=pytest.mark.slow,
        ),
    ],
    ids=str,
)
def test_the_formula_equals_the_matrix_products_of_the_compiled_step(remat, changes):
    config = make_config(
        **{
            "sampling__max_completion_length": 48,
            "prompt__max_length": 16,
            "batching__logits_chunk": 16,
            "batching__microbatch_size": 8,
        }
        | changes
    )
    small = dataclasses.replace(WIDE, num_layers=2)
    networks = Networks(Actor(WIDE, remat=remat), Critic(small, remat=remat))
    costs = phase_costs(config, networks)
    formula = costs["step"].flops
    state = jax.eval_shape(lambda: create_train_state(config, networks))
    rollout = rollout_shapes(config, make_mesh(config.mesh))
    program = jax.jit(partial(train_step, networks=networks, config=config))
    reference = state.actor_params if config.algorithm.kl_coef else None
    text = program.lower(state, rollout, reference_params=reference).compile().as_text()
    assert text
    compiled = dot_flops(read_program(text))
    assert compiled == pytest.approx(formula, rel=0.05)


def test_costs_grow_with_the_completion_length_and_the_number_of_critics():
    networks = Networks(Actor(WIDE), Critic(WIDE))
    short, long = (make_config(sampling__max_completion_length=n) for n in (9, 18))
    assert sizes_of(long).length - sizes_of(short).length == 9
    one_critic, two_critics = (phase_costs(make_config(k), networks) for k in (1, 2))
    assert two_critics["values"].flops == 2 * one_critic["values"].flops
    # The responses are divided among the critics, so the update of two costs as much as of one.
    assert two_critics["critics"].flops == one_critic["critics"].flops
    divided = {
        data: phase_costs(make_config(2, algorithm__critic_data=data), networks)["critics"].flops
        for data in ("prompts", "all")
    }
    assert divided["prompts"] == two_critics["critics"].flops
    assert divided["all"] == 2 * two_critics["critics"].flops
    ratio = phase_costs(long, networks)["actor"].flops / phase_costs(short, networks)["actor"].flops
    assert ratio > 23 / 14
