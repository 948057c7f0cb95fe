"""Between text and arrays, and held-out evaluation on top of it."""

import dataclasses
from typing import Any, cast

import jax
import numpy as np
import pytest

from asyppo_jax.config import ConfigError, MeshConfig, RewardConfig
from asyppo_jax.evaluate import evaluate
from asyppo_jax.models.pretrained import load_actor_params, load_networks
from asyppo_jax.prompts import load_tokenizer, make_prompts, pad_token_id, stop_token_ids
from asyppo_jax.records import Record
from asyppo_jax.rewards import RewardPool
from asyppo_jax.rollouts import (
    check_divides_mesh,
    check_same_vocabulary,
    evaluation_options,
    make_sampler,
    read_answers,
    training_options,
    with_rewards,
)
from asyppo_jax.sharding import make_mesh
from tests.tiny import make_config, make_rollout, save_model_directory

PROBLEMS = ("1+1", "2+3", "4+4", "9+9", "5+1")


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    model = save_model_directory(tmp_path_factory.mktemp("model"))
    config = make_config(
        0,
        actor__path=model,
        prompt__template="{problem}=",
        evaluation__batch_size=2,
        evaluation__num_samples=3,
        sampling__num_prompts=2,
        sampling__group_size=4,
        batching__actor_minibatch_size=8,
        batching__critic_minibatch_size=8,
    )
    tokenizer = load_tokenizer(model)
    networks = load_networks(config)
    records = [Record(p, str(eval(p))) for p in PROBLEMS]
    prompts, _ = make_prompts(records, tokenizer, config.prompt)
    ids = stop_token_ids(tokenizer, model, ()), pad_token_id(tokenizer)
    params = jax.tree.map(jax.numpy.asarray, load_actor_params(config, networks))
    return config, make_mesh(MeshConfig()), networks, tokenizer, ids, prompts, params


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


def test_evaluation_counts_every_problem_once_and_no_filling(setting):
    config, mesh, networks, tokenizer, ids, prompts, params = setting
    sampler = make_sampler(networks, tokenizer, config, evaluation_options(config, *ids), mesh)
    seen = []
    with RewardPool(RewardConfig(function="exact")) as pool:
        score = pool.score

        class Recorder:
            def score(self, problems, completions, answers):
                seen.extend(problems)
                return score(problems, completions, answers)

        result = evaluate(
            sampler,
            params,
            prompts,
            cast(Any, Recorder()),
            jax.random.key(0),
            config,
            mesh,
        )
    assert seen == [p for p in PROBLEMS for _ in range(3)]
    assert 0 <= result.accuracy <= 1 and result.invalid == 0
    assert result.metrics()["evaluate/accuracy"] == result.accuracy


def test_sizes_must_divide_the_data_axis():
    class Mesh:
        shape = {"data": 3, "model": 1}  # noqa: RUF012

    with pytest.raises(ConfigError, match="num_prompts is 4; make it a multiple"):
        check_divides_mesh(make_config(0), Mesh())  # type: ignore


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
