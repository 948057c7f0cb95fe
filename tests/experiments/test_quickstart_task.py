import random
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.core import meta

from asyppo_jax.models.actor_critic import Actor, Networks, init_actor
from asyppo_jax.models.formats.huggingface import load_config, load_params
from asyppo_jax.tasks.rewards.graders import exact
from asyppo_jax.tasks.tokenizers import load_tokenizer
from experiments.quickstart import corpus, make_model, pretraining, task
from experiments.quickstart.tokenizer import make_tokenizer

MODEL_DIRECTORY = Path(task.__file__).parent / "model"


def token_ids(tokenizer, text):
    return tokenizer(text)["input_ids"]


def problems_of(split, seed, count=500):
    return {record["problem"] for record in task.records(split, count, seed)}


def test_training_and_evaluation_share_no_problem_for_any_seed():
    for seed in range(4):
        assert not problems_of("train", seed, 2000) & problems_of("eval", 1)


def test_records_are_the_same_exactly_for_the_same_seed():
    assert task.records("train", 50, 3) == task.records("train", 50, 3)
    assert problems_of("train", 3) != problems_of("train", 4)


def test_records_are_the_requested_number_of_distinct_problems():
    assert len(problems_of("eval", 0, 1000)) == 1000


def test_answers_are_the_sums_of_the_problems():
    records = task.records("eval", 500, 0)
    assert [r["answer"] for r in records] == [str(eval(r["problem"])) for r in records]


def test_difficulties_are_mixed():
    counts = [len(task.numbers_of(p)) for p in problems_of("train", 0)]
    assert len(set(counts)) == 3
    assert min(counts.count(n) for n in set(counts)) > 50


def test_the_error_for_an_unknown_split_names_it():
    with pytest.raises(ValueError, match="split is 'test'; choose 'train' or 'eval'"):
        task.records("test", 1, 0)


def test_solutions_have_the_requested_steps():
    worked = r"7+25=32 32+18=50 50+9=59 \boxed{59}"
    assert task.solution("7+25+18+9", [1, 1, 1]) == worked
    assert task.solution("7+25+18+9", [2, 1]) == r"7+25+18=50 50+9=59 \boxed{59}"
    assert task.solution("7+25+18+9", []) == r"\boxed{59}"


def test_styles_are_distinguished_by_the_number_of_steps():
    problem = "7+25+18+9"
    assert task.style_of(problem, task.solution(problem, [])) == "direct"
    assert task.style_of(problem, task.solution(problem, [2, 1])) == "leaping"
    assert task.style_of(problem, task.solution(problem, [1, 1, 1])) == "worked"


def test_every_prompt_and_worked_solution_fits_the_declared_lengths():
    tokenizer = make_tokenizer()
    prompts, completions = [0], [0]
    for problem in problems_of("train", 0, 5000):
        prompt = task.PROMPT_TEMPLATE.format(problem=problem)
        worked = task.solution(problem, [1] * (len(task.numbers_of(problem)) - 1))
        prompts.append(len(token_ids(tokenizer, prompt)))
        completions.append(len(token_ids(tokenizer, worked)) + 1)
    assert max(prompts) == task.MAX_PROMPT_LENGTH
    assert max(completions) == task.MAX_COMPLETION_LENGTH


def test_the_corpus_has_no_evaluation_problem():
    rng = random.Random(0)
    prompts = [corpus.draw_document(rng)[0] for _ in range(2000)]
    assert {task.split_of(prompt.removesuffix("=")) for prompt in prompts} == {"train"}


def test_the_corpus_has_its_declared_style_shares_and_only_direct_answers_are_wrong():
    rng = random.Random(0)
    right = {style: [] for style in task.STYLES}
    for _ in range(4000):
        prompt, completion = corpus.draw_document(rng)
        problem = prompt.removesuffix("=")
        score = exact(problem, completion, str(eval(problem)))
        right[task.style_of(problem, completion)].append(score)
    for style, share in corpus.STYLE_SHARES.items():
        assert len(right[style]) / 4000 == pytest.approx(share, abs=0.03)
    assert np.mean(right["leaping"]) == np.mean(right["worked"]) == 1
    assert np.mean(right["direct"]) == pytest.approx(1 / (2 * corpus.ESTIMATE_ERROR + 1), abs=0.04)


def test_packing_keeps_all_tokens_and_restarts_positions_in_each_document():
    documents = [([1, 2], [3]), ([4], [5, 6]), ([7, 8], [9, 10])]
    packed = corpus.packed_rows(iter([*documents, ([1], [2, 3, 4])]), rows=2, length=7)
    assert packed.tokens.tolist() == [[1, 2, 3, 4, 5, 6, 0], [7, 8, 9, 10, 0, 0, 0]]
    assert packed.positions[0].tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert packed.document[0].tolist() == [1, 1, 1, 2, 2, 2, 0]
    assert packed.is_completion[0].tolist() == [False, False, True, False, True, True, False]


def test_the_loss_of_a_packed_document_equals_its_loss_alone():
    networks = Networks(Actor(make_model.MODEL), None)
    params = meta.unbox(init_actor(networks.actor, jax.random.key(0)))
    packed = next(pretraining.batches(corpus.draw_document, 0))
    first, second = (packed.document[0] == n for n in (1, 2))

    def only(document):
        mask = np.zeros_like(packed.is_completion)
        mask[0] = packed.is_completion[0] & document
        return packed._replace(is_completion=mask)

    alone = corpus.Rows(*(np.zeros_like(x) for x in packed))
    for alone_array, packed_array in zip(alone, packed, strict=True):
        alone_array[0, : second.sum()] = packed_array[0, second]
    assert first.any() and second.any()
    loss = jax.jit(pretraining.mean_loss, static_argnums=2)
    np.testing.assert_allclose(
        loss(params, only(second), networks), loss(params, alone, networks), rtol=1e-5
    )


@pytest.fixture(scope="module")
def shipped_tokenizer():
    return load_tokenizer(str(MODEL_DIRECTORY))


def test_the_shipped_tokenizer_equals_the_one_that_the_script_makes(shipped_tokenizer):
    assert shipped_tokenizer.get_vocab() == make_tokenizer().get_vocab()
    assert len(shipped_tokenizer) == load_config(str(MODEL_DIRECTORY)).vocab_size


def test_the_shipped_tokenizer_decodes_to_the_original_text(shipped_tokenizer):
    text = task.solution("7+25+18+9", [1, 1, 1])
    ids = token_ids(shipped_tokenizer, text)
    assert shipped_tokenizer.decode([*ids, shipped_tokenizer.eos_token_id]) == text + "<eos>"
    assert shipped_tokenizer.decode(ids, skip_special_tokens=True) == text
    assert len(token_ids(shipped_tokenizer, r"\boxed{")) == 1


def test_a_chat_with_the_problem_is_formatted_as_the_plain_prompt(shipped_tokenizer):
    chat = [{"role": "system", "content": "Reason."}, {"role": "user", "content": "7+25+18"}]
    text = shipped_tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == task.PROMPT_TEMPLATE.format(problem="7+25+18")


@pytest.mark.usefixtures("one_sampler")
def test_the_shipped_model_mostly_estimates_but_is_mostly_right_when_it_writes_the_steps():
    config = load_config(str(MODEL_DIRECTORY))
    assert config == make_model.MODEL
    params = load_params(str(MODEL_DIRECTORY), config, "actor")
    networks = Networks(Actor(config), None)
    sampled = make_model.measure(params, networks, temperature=1.0, num_problems=400)
    greedy = make_model.measure(params, networks, temperature=0.0, num_problems=400)
    assert 0.2 < sampled.accuracy < 0.45
    assert greedy.accuracy < 0.55
    assert sampled.style_accuracy["worked"] > 0.75
    assert sampled.style_accuracy["worked"] > sampled.style_accuracy["direct"] + 0.4
