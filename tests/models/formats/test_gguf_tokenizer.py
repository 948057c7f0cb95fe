import pytest
from transformers import AutoTokenizer

from asyppo_jax.models.formats.gguf import convert_gguf
from tests.models.formats.gguf_files import ENDOFTEXT, IM_END, TOKENS, write_gguf


def tokenizer_of(tmp_path, **changes):
    convert_gguf(write_gguf(tmp_path / "m.gguf", **changes), tmp_path / "out")
    return AutoTokenizer.from_pretrained(tmp_path / "out")


def test_decoding_the_tokens_of_a_text_gives_the_text(tmp_path):
    tokenizer = tokenizer_of(tmp_path)
    text = "hell 12 héllo\n\tn° ½ 中文 <tag><|im_end|>"
    assert tokenizer.decode(tokenizer(text).input_ids) == text


@pytest.mark.parametrize(
    ("pre", "tokens"),
    [
        ("smollm", ["hell", "Ġ", "1", "2"]),
        ("qwen2", ["hell", "Ġ", "1", "2"]),
        ("llama-bpe", ["hell", "Ġ", "12"]),
        ("gpt-2", ["hell", "Ġ1", "2"]),
    ],
)
def test_text_is_split_before_the_merges_by_the_named_pretokenizer(tmp_path, pre, tokens):
    # The merges include "1 2" and "Ġ 1". Which of them applies depends only on the split.
    merges = ["h e", "l l", "he ll", "Ġ 1", "1 2"]
    changes = {"tokenizer__ggml__pre": pre, "tokenizer__ggml__merges": merges}
    assert tokenizer_of(tmp_path, **changes).tokenize("hell 12") == tokens


def test_special_tokens_are_single_tokens_and_unused_ones_are_omitted(tmp_path):
    tokenizer = tokenizer_of(tmp_path)
    ids = tokenizer("1<|im_end|><tag>1").input_ids
    digit = TOKENS.index("1")
    assert ids == [digit, IM_END, TOKENS.index("<tag>"), digit]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "1<tag>1"
    assert (tokenizer.eos_token_id, tokenizer.bos_token_id) == (IM_END, ENDOFTEXT)
    assert "[PAD]" not in tokenizer.get_vocab()


def test_the_bos_token_is_added_if_the_file_or_its_pretokenizer_says_so(tmp_path):
    tokenizer = tokenizer_of(tmp_path, tokenizer__ggml__add_bos_token=True)
    assert tokenizer("1").input_ids == [ENDOFTEXT, TOKENS.index("1")]
    # Some files of Llama 3 have no such field; then the rule of the pretokenizer applies.
    changes = {"tokenizer__ggml__pre": "llama-bpe", "tokenizer__ggml__add_bos_token": None}
    (tmp_path / "llama3").mkdir()
    tokenizer = tokenizer_of(tmp_path / "llama3", **changes)
    assert tokenizer("1").input_ids == [ENDOFTEXT, TOKENS.index("1")]


def test_chat_template_is_kept(tmp_path):
    messages = [{"role": "user", "content": "hell"}]
    assert tokenizer_of(tmp_path).apply_chat_template(messages, tokenize=False) == "hell<|im_end|>"
