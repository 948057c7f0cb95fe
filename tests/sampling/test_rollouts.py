"""Between text and arrays."""

import dataclasses
from functools import partial
from typing import Any, cast

import jax
import numpy as np
import pytest

from asyppo_jax.config import ConfigError, MeshConfig
from asyppo_jax.runtime.sharding import make_mesh
from asyppo_jax.sampling.rollouts import (
    check_divides_data_axis,
    check_same_vocabulary,
    join_parts,
    make_sampler,
    one_ahead,
    read_answers,
    sample_in_parts,
    training_options,
    with_rewards,
)
from tests.tiny import make_config, make_rollout, make_sampling_setting

PROBLEMS = ("1+1", "2+3", "4+4", "9+9", "5+1")


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    return make_sampling_setting(tmp_path_factory.mktemp("model"), PROBLEMS)


def test_answers_stand_beside_their_problems_in_groups(setting):
    config, mesh, networks, tokenizer, ids, prompts, params = setting
    sampler = make_sampler(networks, tokenizer, config, training_options(config, *ids), mesh)
    rollout = sampler(params, prompts[:2], jax.random.key(0), mesh)
    answers = read_answers(rollout, prompts[:2], sampler)
    assert answers.problems == ["1+1"] * 4 + ["2+3"] * 4
    assert answers.prompts == ["1+1="] * 4 + ["2+3="] * 4
    assert answers.answers == ["2"] * 4 + ["5"] * 4
    lengths = np.asarray(rollout.completion_mask).sum(axis=1)
    np.testing.assert_array_equal(answers.lengths, lengths)
    last = np.asarray(rollout.tokens)[np.arange(8), config.prompt.max_length + lengths - 1]
    np.testing.assert_array_equal(answers.truncated, ~np.isin(last, ids[0]))


@pytest.mark.parametrize("parts", [1, 2])
def test_a_rollout_in_parts_is_the_rollout(setting, parts):
    config, mesh, networks, tokenizer, ids, prompts, params = setting
    sampler = make_sampler(networks, tokenizer, config, training_options(config, *ids), mesh)
    key, prompts = jax.random.key(0), prompts[:4]
    whole = sampler(params, prompts, key, mesh)
    pieces = list(sample_in_parts(sampler, params, prompts, key, mesh, parts))
    assert len(pieces) == parts
    joined, answers = join_parts(pieces, mesh)
    for name in ("tokens", "prompt_mask", "completion_mask"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(whole, name))
    np.testing.assert_allclose(joined.log_probs, whole.log_probs, atol=1e-5)
    for have, want in zip(answers, read_answers(whole, prompts, sampler), strict=True):
        np.testing.assert_array_equal(have, want)


def test_the_next_part_is_sampled_while_one_is_scored():
    """It has begun, and only it, when a part is handed over."""
    begun: list[int] = []

    def start(i: int) -> Any:
        begun.append(i)
        return i

    for i, part in enumerate(one_ahead(partial(start, i) for i in range(3))):
        assert part == i and begun == list(range(min(i + 2, 3)))
    assert list(one_ahead([])) == []


def test_fractional_rewards_stay_fractions():
    """The trap: an integer buffer for rewards truncates 0.5 to 0."""
    config, mesh = make_config(0), make_mesh(MeshConfig())
    given = np.full(32, 0.5)
    naive = np.zeros(32, np.int32)
    naive[:] = given
    assert naive.sum() == 0
    rollout = with_rewards(make_rollout(config), given, np.ones(32, bool), mesh)
    assert rollout.rewards.dtype == np.float32
    np.testing.assert_array_equal(rollout.rewards, given)


def test_sizes_must_divide_the_data_axis():
    check_divides_data_axis(make_config(0), 4)
    with pytest.raises(ConfigError, match="num_prompts is 4; make it a multiple"):
        check_divides_data_axis(make_config(0), 3)
    with pytest.raises(ConfigError, match="num_prompts / parts is 2; make it a multiple"):
        check_divides_data_axis(make_config(0, sampling__parts=2), 4)


def test_the_first_different_token_is_named():
    @dataclasses.dataclass
    class Tokenizer:
        vocabulary: dict

        def get_vocab(self):
            return self.vocabulary

    one, two = Tokenizer({"a": 0}), Tokenizer({"a": 0, "b": 1})
    check_same_vocabulary(cast(Any, one), cast(Any, one))
    with pytest.raises(
        ConfigError, match=r"token 'b' is 1 for the actor and absent .*\(1 differ\)"
    ):
        check_same_vocabulary(cast(Any, two), cast(Any, one))
