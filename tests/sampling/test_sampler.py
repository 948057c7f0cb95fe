"""From prompts to answers beside their problems."""

from dataclasses import replace

import jax
import numpy as np

from asyppo_jax.config import ValueConfig
from asyppo_jax.sampling.rollouts import join_chunks, sample_in_chunks
from asyppo_jax.sampling.sampler import read_answers, training_options
from asyppo_jax.tasks.prompts import with_reference
from tests.tiny import make_config_sampler


def test_answers_have_their_problems_and_are_in_groups(setting):
    config, mesh, networks, tokenizer, ids, prompts, params = setting
    sampler = make_config_sampler(networks, tokenizer, config, training_options(config, *ids), mesh)
    rollout = sampler(params, prompts[:2], jax.random.key(0), mesh)
    answers = read_answers(rollout, prompts[:2], sampler)
    assert answers.problems == ["1+1"] * 4 + ["2+3"] * 4
    assert answers.prompts == ["1+1="] * 4 + ["2+3="] * 4
    assert answers.answers == ["2"] * 4 + ["5"] * 4
    lengths = np.asarray(rollout.completion_mask).sum(axis=1)
    np.testing.assert_array_equal(answers.lengths, lengths)
    last = np.asarray(rollout.tokens)[np.arange(8), config.prompt.max_length + lengths - 1]
    np.testing.assert_array_equal(answers.truncated, ~np.isin(last, ids[0]))


def test_a_rollout_has_the_critics_prompts_and_is_otherwise_the_same(setting):
    config, mesh, networks, tokenizer, ids, prompts, params = setting
    sampler = make_config_sampler(networks, tokenizer, config, training_options(config, *ids), mesh)
    plain = sampler(params, prompts[2:4], jax.random.key(0), mesh)
    assert plain.critic_prompt is None
    value = ValueConfig(reference_answer="{answer}\n")
    asked = [with_reference(p, tokenizer, value) for p in prompts[2:4]]
    own = replace(sampler, reference_length=3)
    rollout, _ = join_chunks(
        list(sample_in_chunks(own, params, asked, jax.random.key(0), mesh, 1)), mesh
    )
    critic_prompt, mask = (
        np.asarray(x) for x in (rollout.critic_prompt, rollout.critic_prompt_mask)
    )
    assert critic_prompt.shape == (8, 3 + config.prompt.max_length)
    texts = [tokenizer.decode(row[real]) for row, real in zip(critic_prompt, mask, strict=True)]
    assert texts == ["8\n4+4="] * 4 + ["18\n9+9="] * 4
    without = rollout.replace(critic_prompt=None, critic_prompt_mask=None)
    jax.tree.map(np.testing.assert_array_equal, without, plain)
