"""Files of saved rollouts: reading back what was written, and errors for other files."""

import json

import pytest
from transformers import PreTrainedTokenizerFast

from asyppo_jax.runs.rollout_files import (
    RolloutFileError,
    read_rollout_file,
    token_texts,
    write_rollout_file,
)
from tests.tiny import make_saved_answer


@pytest.fixture
def file(tmp_path):
    answers = [make_saved_answer(group=0), make_saved_answer(group=1, reward=None, critic=None)]
    write_rollout_file(tmp_path / "rollouts" / "step_00000003.jsonl", answers)
    return tmp_path / "rollouts" / "step_00000003.jsonl"


def test_answers_are_read_back_as_they_were_written(file):
    first, second = read_rollout_file(file)
    assert first == make_saved_answer(group=0)
    assert (second.group, second.reward, second.critic) == (1, None, None)


def test_non_finite_numbers_are_null_and_others_keep_six_decimals(tmp_path):
    answer = make_saved_answer(entropy=[float("nan"), float("inf"), 0.123456789])
    write_rollout_file(tmp_path / "a.jsonl", [answer])
    text = (tmp_path / "a.jsonl").read_text()
    assert "NaN" not in text and "Infinity" not in text
    assert read_rollout_file(tmp_path / "a.jsonl")[0].entropy == [None, None, 0.123457]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda line: b'{"step": 1', "line 2, is not JSON"),
        (lambda line: b"[]", "line 2, lacks field 'advantage_mask'"),
        (lambda line: json.dumps(json.loads(line) | {"x": 1}).encode(), "unknown field 'x'"),
        (
            lambda line: json.dumps(json.loads(line) | {"entropy": [0.1]}).encode(),
            "line 2, has 1 entropy for 3 tokens",
        ),
        (
            lambda line: json.dumps(json.loads(line) | {"values": [[0.1] * 3, [0.1]]}).encode(),
            r"line 2, has 1 values\[1\] for 3 tokens",
        ),
    ],
)
def test_a_bad_line_gives_a_one_sentence_error_with_its_number(file, change, sentence):
    good, second = file.read_bytes().splitlines()
    file.write_bytes(good + b"\n" + change(second) + b"\n")
    with pytest.raises(RolloutFileError, match=sentence) as caught:
        read_rollout_file(file)
    assert "\n" not in str(caught.value)


def test_the_error_for_a_missing_or_empty_file_says_how_to_get_one(tmp_path):
    with pytest.raises(RolloutFileError, match=r"does not exist.*config\.log\.rollouts_every"):
        read_rollout_file(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(RolloutFileError, match="is empty"):
        read_rollout_file(tmp_path / "empty.jsonl")


@pytest.fixture(scope="module")
def bytes_tokenizer():
    """One token per byte: every character outside of ASCII spans several tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: i for i, character in enumerate(alphabet)} | {"<end>": len(alphabet)}
    inner = Tokenizer(models.BPE(vocabulary, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>")


@pytest.mark.parametrize("text", ["1+1=2", "a π is ≈ 3", "x 🙂🙂 y", "é", "<end>", "naïve<end>"])
def test_joined_token_texts_give_the_text(bytes_tokenizer, text):
    tokens = bytes_tokenizer(text, add_special_tokens=False)["input_ids"]
    texts = token_texts(bytes_tokenizer, tokens)
    assert len(texts) == len(tokens) and "".join(texts) == text


def test_a_character_is_the_text_of_the_token_that_completes_it(bytes_tokenizer):
    tokens = bytes_tokenizer("aπb🙂", add_special_tokens=False)["input_ids"]
    assert token_texts(bytes_tokenizer, tokens) == ["a", "", "π", "b", "", "", "", "🙂"]
    assert token_texts(bytes_tokenizer, tokens[:2]) == ["a", "\ufffd"]
    assert token_texts(bytes_tokenizer, []) == []


def test_invalid_bytes_do_not_swallow_the_text_after_them(bytes_tokenizer):
    (first, *_) = bytes_tokenizer("π", add_special_tokens=False)["input_ids"]
    (letter,) = bytes_tokenizer("a", add_special_tokens=False)["input_ids"]
    texts = token_texts(bytes_tokenizer, [first] * 9 + [letter])
    assert len(texts) == 10 and texts[-1].endswith("a") and len(texts[-1]) <= 5


def test_a_held_out_answer_has_no_advantages_and_an_earlier_file_has_no_held_out_field(file):
    of_training = ("advantages", "returns", "advantage_mask", "entropy_mask")
    changes = {name: [] for name in of_training} | {"held_out": True, "critic": None, "step": 0}
    answer = make_saved_answer(**changes)
    write_rollout_file(file, [answer])
    assert read_rollout_file(file) == [answer]
    earlier = {k: v for k, v in json.loads(file.read_bytes()).items() if k != "held_out"}
    file.write_text(json.dumps(earlier))
    with pytest.raises(RolloutFileError, match="line 1, has 0 advantages for 3 tokens"):
        read_rollout_file(file)  # an answer that a step trains on has them
    write_rollout_file(file, [make_saved_answer()])
    earlier = {k: v for k, v in json.loads(file.read_bytes()).items() if k != "held_out"}
    file.write_text(json.dumps(earlier))
    assert read_rollout_file(file) == [make_saved_answer()]
