"""The whole step: identities, causality of gradients, one trace, a golden step."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asyppo_jax.algorithm.train_step import phase_key
from tests.tiny import (
    assert_trees_close,
    assert_trees_equal,
    jit_step,
    make_config,
    make_networks,
    make_rollout,
    make_state,
    with_one_prompt_a_group,
)

_WARMING_UP = {"algorithm__critic_warmup_steps": 2, "batching__packing": True}
GOLDEN = Path(__file__).parents[1] / "fixtures" / "golden_step.json"


def _run(num_critics=2, rollout_seed=0, rollout=None, **changes):
    config, networks = make_config(num_critics, **changes), make_networks(num_critics)
    state = make_state(config, networks)
    rollout = make_rollout(config, rollout_seed) if rollout is None else rollout
    return state, *jit_step(config, networks)(state, rollout)


@pytest.mark.slow  # tests/test_experience.py shows it for the masks
def test_with_one_critic_the_mask_fractions_change_nothing():
    """K = 1 has no disagreement: AsyPPO is then PPO, whatever the fractions say."""
    _, masked, _ = _run(1)
    _, plain, _ = _run(
        1, algorithm__advantage_mask_fraction=0.0, algorithm__entropy_mask_fraction=0.0
    )
    assert_trees_equal(masked.actor_params, plain.actor_params)
    assert_trees_equal(masked.critic_params, plain.critic_params)


@pytest.mark.slow  # tests/test_updates.py shows it for the losses
def test_with_two_critics_the_mask_fractions_change_the_actor_only():
    _, masked, _ = _run(2)
    _, plain, _ = _run(
        2, algorithm__advantage_mask_fraction=0.0, algorithm__entropy_mask_fraction=0.0
    )
    assert_trees_equal(masked.critic_params, plain.critic_params)
    differs = jax.tree.map(
        lambda a, b: bool((a != b).any()), masked.actor_params, plain.actor_params
    )
    assert any(jax.tree.leaves(differs))


@pytest.mark.parametrize("num_critics", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_microbatches_change_no_number(num_critics):
    _, whole, _ = _run(num_critics, batching__microbatch_size=16)
    _, cut, _ = _run(num_critics, batching__microbatch_size=4)
    assert_trees_close(whole.actor_params, cut.actor_params, atol=2e-5)
    assert_trees_close(whole.critic_params, cut.critic_params, atol=2e-5)


def _of_all_rows(metrics):
    """Without the overlaps of σ and entropy, which rank the tokens of each microbatch."""
    of_microbatches = {"ensemble/low_std_low_entropy", "ensemble/high_std_high_entropy"}
    return {name: x for name, x in metrics.items() if name not in of_microbatches}


@pytest.mark.parametrize(
    ("num_critics", "changes"),
    [
        (2, {}),
        (0, {"algorithm__old_log_probs": "recompute"}),
    ],
)
@pytest.mark.slow  # tests/test_updates.py shows it for a loss and its gradient
def test_packing_changes_no_number(num_critics, changes):
    """Ragged prompts and answers, a row without a reward: parameters and metrics of two steps."""
    changes = changes | {"batching__microbatch_size": 4}
    _, whole, metrics = _run_twice(num_critics, batching__packing=False, **changes)
    _, packed, others = _run_twice(num_critics, batching__packing=True, **changes)
    assert_trees_close(whole.actor_params, packed.actor_params, atol=1e-5)
    assert_trees_close(whole.critic_params, packed.critic_params, atol=1e-5)
    assert_trees_close(_of_all_rows(metrics), _of_all_rows(others), atol=1e-5)


@pytest.mark.parametrize(
    ("num_critics", "changes"),
    [
        (2, {"batching__packing": True}),
        (2, {}),
        (0, {"algorithm__old_log_probs": "recompute"}),
    ],
)
@pytest.mark.slow  # tests/test_updates.py shows it for a loss and its gradient
def test_sharing_prompts_changes_no_number(num_critics, changes):
    """The same minibatches, which are all rows: parameters and metrics of two steps."""
    sizes = {"actor_minibatch_size": 32, "critic_minibatch_size": 32, "microbatch_size": 8}
    changes = changes | {f"batching__{name}": size for name, size in sizes.items()}
    changes["actor_optimizer__eps"] = 1e-3  # Adam's sign-like first steps would blow up rounding
    _, whole, metrics = _run_twice(num_critics, _sampled, **changes)
    _, shared, others = _run_twice(num_critics, _sampled, batching__rows_per_prompt=4, **changes)
    assert_trees_close(whole.actor_params, shared.actor_params, atol=1e-5)
    assert_trees_close(whole.critic_params, shared.critic_params, atol=1e-5)
    assert_trees_close(_of_all_rows(metrics), _of_all_rows(others), atol=1e-5)


def _sampled(config, seed):
    return with_one_prompt_a_group(make_rollout(config, seed), config)


def _run_twice(num_critics, draw=make_rollout, **changes):
    config, networks = make_config(num_critics, **changes), make_networks(num_critics)
    state, after, _ = _run(num_critics, rollout=draw(config, 0), **changes)
    return state, *jit_step(config, networks)(after, draw(config, 1))


def test_the_largest_gap_is_that_of_one_token_however_the_rollout_is_cut():
    _, _, whole = _run(batching__microbatch_size=16)
    _, _, cut = _run(batching__microbatch_size=4)
    np.testing.assert_allclose(
        whole["rollout/log_prob_gap_max"], cut["rollout/log_prob_gap_max"], rtol=1e-5
    )


@pytest.mark.slow  # two programs to compile; tests/ops/test_logits.py shows it for the function
def test_the_size_of_the_logits_chunk_changes_no_number():
    _, small, _ = _run(2, batching__logits_chunk=2)
    _, large, _ = _run(2, batching__logits_chunk=9)
    assert_trees_close(small.actor_params, large.actor_params, atol=2e-5)


def test_what_a_false_mask_hides_changes_no_parameter():
    config = make_config()
    rollout = make_rollout(config)
    real = jnp.concatenate([rollout.prompt_mask, rollout.completion_mask], axis=1)
    other = rollout.replace(
        tokens=jnp.where(real, rollout.tokens, 17),
        log_probs=jnp.where(rollout.completion_mask, rollout.log_probs, 99.0),
        rewards=rollout.rewards.at[3].set(0.5),  # the invalid row
    )
    _, before, _ = _run(rollout=rollout)
    _, after, _ = _run(rollout=other)
    assert_trees_equal(before.actor_params, after.actor_params)
    assert_trees_equal(before.critic_params, after.critic_params)


@pytest.mark.slow
def test_an_epoch_at_learning_rate_zero_moves_nothing_but_the_step():
    before, after, _ = _run(
        2, actor_optimizer__learning_rate=0.0, critic_optimizer__learning_rate=0.0
    )
    assert_trees_equal(before.actor_params, after.actor_params)
    assert_trees_equal(before.critic_params, after.critic_params)
    assert int(after.step) == 1


def test_during_the_critics_warm_up_only_the_critics_learn():
    before, after, metrics = _run(**_WARMING_UP)
    assert_trees_equal(before.actor_params, after.actor_params)
    assert_trees_equal(before.actor_opt_state, after.actor_opt_state)
    assert not np.array_equal(
        before.critic_params["value_kernel"], after.critic_params["value_kernel"]
    )
    assert np.isnan(metrics["actor/loss"]) and np.isfinite(metrics["critic/loss"])


@pytest.mark.parametrize("packing", [pytest.param(False, marks=pytest.mark.slow), True])
def test_one_trace_serves_the_whole_run(packing):
    """The critics' warm-up and after it, answers of any length."""
    changes = _WARMING_UP | {"batching__packing": packing}
    config, networks = make_config(**changes), make_networks()
    state = make_state(config, networks)
    step = jit_step(config, networks)
    for seed in range(4):
        state, _ = step(state, make_rollout(config, seed))
    assert step._cache_size() == 1  # type: ignore[attr-defined]


def test_no_two_steps_and_no_two_phases_share_a_key():
    """The trap: a sampler whose key comes from a fixed seed repeats the same noise each step."""
    config, networks = make_config(), make_networks()
    state = make_state(config, networks)
    naive, ours = set(), set()
    for step in range(5):
        now = state.replace(step=jnp.int32(step))
        naive.add(tuple(np.asarray(jax.random.bits(jax.random.key(config.seed), (4,))).tolist()))
        for phase in ("sample", "experience", "critics", "actor", "evaluate"):
            noise = jax.random.bits(phase_key(now.key, now.step, phase), (4,))
            ours.add(tuple(np.asarray(noise).tolist()))
    assert len(naive) == 1
    assert len(ours) == 25


@pytest.mark.slow  # nine programs to compile; each branch also has a quick test beside its function
@pytest.mark.parametrize(
    "changes",
    [
        {"algorithm__value_timing": "after_update"},
        {"algorithm__returns": "monte_carlo", "algorithm__gamma": 0.9},
        {"algorithm__advantage_whitening": "none"},
        {"algorithm__gae_lambda": 0.9},
        {"algorithm__clip_eps_high": 0.001},
        {"algorithm__entropy_coef": 0.1},
        {"algorithm__actor_epochs": 1},
        {"algorithm__critic_optimizer": "joint", "critic_optimizer__max_grad_norm": 0.01},
        {"algorithm__old_log_probs": "recompute"},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_every_choice_where_the_paper_is_silent_has_its_alternative(changes):
    _, default, _ = _run()
    _, other, metrics = _run(**changes)
    both = (default.actor_params, default.critic_params), (other.actor_params, other.critic_params)
    differs = jax.tree.leaves(jax.tree.map(lambda a, b: bool((a != b).any()), *both))
    assert any(differs)
    assert all(np.isfinite(x) for x in metrics.values())


@pytest.mark.slow  # a program of its own to compile
def test_the_gap_is_that_of_sampler_and_learner_also_with_recomputed_old_log_probs():
    _, _, sampled = _run(batching__actor_minibatch_size=32)  # all sequences are the first minibatch
    _, _, recomputed = _run(algorithm__old_log_probs="recompute")
    assert sampled["rollout/log_prob_gap"] > 0.01
    for name in ("rollout/log_prob_gap", "rollout/log_prob_gap_max"):
        np.testing.assert_allclose(recomputed[name], sampled[name], rtol=1e-4)


def test_the_golden_step():
    """Three steps from a fixed seed. After a meant change: delete the file, run, look, commit."""
    config, networks = make_config(), make_networks()
    state = make_state(config, networks)
    step = jit_step(config, networks)
    rows = []
    for seed in range(3):
        state, metrics = step(state, make_rollout(config, seed))
        rows.append({name: float(value) for name, value in sorted(metrics.items())})
    if not GOLDEN.exists():
        GOLDEN.write_text(json.dumps(rows, indent=1) + "\n")
        pytest.fail(f"{GOLDEN.name} was missing and has been written; look at it and commit it")
    for number, (row, golden) in enumerate(zip(rows, json.loads(GOLDEN.read_text()), strict=True)):
        assert row.keys() == golden.keys()
        for name, value in golden.items():
            assert row[name] == pytest.approx(value, rel=2e-3, abs=2e-5), (
                f"step {number + 1}: {name} is {row[name]}, the golden step has {value}; if the "
                f"mathematics was meant to change, delete {GOLDEN.name}, run this test and commit"
            )
