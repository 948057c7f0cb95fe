"""From prompts to answers beside their problems."""

import jax
import numpy as np

from asyppo_jax.sampling.sampler import read_answers, training_options
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
