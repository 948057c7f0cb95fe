"""Learning rates by step: those of the optimizers' own updates, and decays that end too early."""

import dataclasses
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asyppo_jax.algorithm.learning_rates import _rate_after, describe_early_ends, learning_rates
from asyppo_jax.algorithm.optimizer import learning_rate_schedule, make_optimizer
from asyppo_jax.config import Config, OptimizerConfig

DECAY = OptimizerConfig(learning_rate=0.5, schedule="linear", warmup_steps=2, decay_steps=8)


def _config(critics: int = 2, num_steps: int = 6) -> Config:
    """4 updates of the actor per step from step 2 on, and 2 of the critics."""
    config = Config(num_steps=num_steps, actor_optimizer=DECAY, critic_optimizer=DECAY)
    algorithm = dataclasses.replace(
        config.algorithm,
        num_critics=critics,
        advantages="gae" if critics else "grpo",
        actor_epochs=2,
        critic_epochs=1,
        critic_warmup_steps=1,
    )
    batch = config.sampling.num_prompts * config.sampling.group_size
    batching = dataclasses.replace(
        config.batching, actor_minibatch_size=batch // 2, critic_minibatch_size=batch // 2
    )
    return dataclasses.replace(config, algorithm=algorithm, batching=batching)


def test_the_rate_is_that_of_the_steps_last_update():
    # Without momentum and with a large eps an update is -rate * gradient / eps.
    settings = dataclasses.replace(DECAY, b1=0.0, b2=0.0, eps=1e6, max_grad_norm=10.0)
    tx, params = make_optimizer(settings), {"w": jnp.zeros(())}
    state, rates = tx.init(params), []
    for _ in range(16):
        update: Any
        update, state = tx.update({"w": jnp.ones(())}, state, params)
        rates.append(-1e6 * float(update["w"]))
    config = _config()
    for step in range(2, 6):
        found = learning_rates(config, step)
        np.testing.assert_allclose(found["actor/learning_rate"], rates[4 * (step - 1) - 1], 1e-4)
        np.testing.assert_allclose(found["critic/learning_rate"], rates[2 * step - 1], 1e-4)
    assert rates[7] > 0.1 and learning_rates(config, 5)["actor/learning_rate"] == 0


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("warmup", [0, 3])
def test_a_rate_is_that_of_the_schedule_of_the_optimizer(schedule, warmup):
    settings = OptimizerConfig(learning_rate=0.5, schedule=schedule, warmup_steps=warmup)
    if schedule != "constant":
        settings = dataclasses.replace(settings, decay_steps=8, final_fraction=0.2)
    updates, expected = np.arange(16), jax.vmap(cast(Any, learning_rate_schedule(settings)))
    rates = [_rate_after(int(n), settings) for n in updates]
    np.testing.assert_allclose(rates, expected(jnp.asarray(updates)), rtol=1e-5)


def test_a_step_of_the_critics_only_and_a_run_without_critics_have_one_rate():
    assert list(learning_rates(_config(), 1)) == ["critic/learning_rate"]
    assert list(learning_rates(_config(critics=0), 1)) == ["actor/learning_rate"]
    first = Config().algorithm.critic_warmup_steps + 1
    assert learning_rates(Config(), first)["actor/learning_rate"] == pytest.approx(1e-6)


def test_a_decay_that_ends_before_the_run_is_described_with_its_step():
    actor, critics = describe_early_ends(_config())
    assert actor == (
        "the actor's learning rate reaches its end, 0, in step 4 of 6: "
        "config.actor_optimizer.decay_steps is 8, and a step has 4 updates"
    )
    assert critics.startswith("the critics' learning rate reaches its end, 0, in step 6 of 6")
    config = _config(num_steps=4)
    assert learning_rates(config, 3)["actor/learning_rate"] > 0
    assert learning_rates(config, 4)["actor/learning_rate"] == 0
    assert len(describe_early_ends(config)) == 1


def test_a_decay_that_ends_with_the_run_or_later_and_a_constant_rate_need_no_line():
    assert describe_early_ends(_config(num_steps=3)) == []
    assert describe_early_ends(Config()) == []
