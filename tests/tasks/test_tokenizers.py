"""Tokenizers: loading without warnings, and the stop and padding tokens."""

import copy
import dataclasses
import json
import os
import subprocess
import sys
from typing import Any, cast

import pytest

from asyppo_jax.config import ConfigError, PromptConfig
from asyppo_jax.config.errors import ModelError
from asyppo_jax.tasks.prompts import make_prompts
from asyppo_jax.tasks.records import Record
from asyppo_jax.tasks.tokenizers import (
    check_rows,
    check_same_vocabulary,
    decode_with_unknown,
    load_tokenizer,
    pad_token_id,
    special_ids,
    stop_token_ids,
    tokenize,
    unknown_pieces,
)
from tests.character_tokenizer import character_tokenizer


def test_a_tokenizer_is_loaded_from_its_directory_with_its_chat_template(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(str(tmp_path))
    records = [Record("1+1=?", "2")]
    assert make_prompts(records, loaded, PromptConfig()) == make_prompts(
        records, tokenizer, PromptConfig()
    )


def test_text_that_is_not_in_the_vocabulary_is_found_and_shown(tokenizer):
    text = "<user>How? Hm!<eos>"
    tokens = tokenize(text, tokenizer)
    assert unknown_pieces(text, tokens, tokenizer) == ("H", "!")
    assert decode_with_unknown(tokens, tokenizer) == "<unk>ow? <unk>m<unk>"
    known = tokenize("<user>1+1<eos>", tokenizer)
    assert unknown_pieces("<user>1+1<eos>", known, tokenizer) == ()
    assert decode_with_unknown(known, tokenizer) == "1+1"


def test_an_end_token_that_is_also_the_unknown_one_is_not_reported(tokenizer):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.unk_token = "<eos>"  # as in GPT-2
    tokens = tokenize("1+1<eos>", tokenizer)
    assert tokenizer.unk_token_id in tokens
    assert unknown_pieces("1+1<eos>", tokens, tokenizer) == ()
    assert decode_with_unknown(tokens, tokenizer) == "1+1"


def test_a_missing_or_broken_tokenizer_gives_a_one_sentence_error(tokenizer, tmp_path):
    with pytest.raises(ConfigError, match=r"no model directory '.*none'; set config\.actor\.path"):
        load_tokenizer(str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="no model directory ''"):
        load_tokenizer("")
    with pytest.raises(ConfigError, match="no tokenizer can be loaded from the directory") as empty:
        load_tokenizer(str(tmp_path))
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0", "trunc')
    with pytest.raises(ConfigError, match="no tokenizer can be loaded from the directory") as bad:
        load_tokenizer(str(tmp_path))
    assert all("\n" not in str(caught.value) for caught in (empty, bad))


def test_loading_prints_nothing_and_an_unknown_hub_name_gives_a_one_sentence_error(
    tokenizer, tmp_path
):
    tokenizer.save_pretrained(tmp_path)
    script = (
        "import sys; from asyppo_jax.tasks import prompts, tokenizers\n"
        "assert 'transformers' not in sys.modules\n"
        "tokenizer = tokenizers.load_tokenizer(sys.argv[1]); assert 'torch' not in sys.modules\n"
        "tokenizer.model_max_length = 2\n"
        "prompts.make_prompts([prompts.Record('1+1=?', '2')], tokenizer, prompts.PromptConfig())\n"
        "try:\n    tokenizers.load_tokenizer('nobody/nothing')\n"
        "except prompts.ConfigError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(tmp_path)],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "from the hub name (there is no directory of that name) 'nobody/nothing'" in done.stdout
    assert done.stdout.count("\n") == 1


@pytest.mark.parametrize(
    ("generation_config", "stop_tokens", "expected"),
    [
        (None, (), ["<eos>"]),
        ({"eos_token_id": 4}, (), ["<eos>", "<user>"]),
        ({"eos_token_id": [1, 4]}, ("\n", "<eos>"), ["<eos>", "<user>", "\n"]),
        ({"eos_token_id": None}, ("?",), ["<eos>", "?"]),
        ({}, (), ["<eos>"]),
    ],
)
def test_every_end_of_sequence_token_is_a_stop_token_once(
    tokenizer, tmp_path, generation_config, stop_tokens, expected
):
    if generation_config is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps(generation_config))
    ids = stop_token_ids(tokenizer, str(tmp_path), stop_tokens)
    assert tokenizer.convert_ids_to_tokens(ids) == expected


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer_config.json"])
def test_end_tokens_are_read_from_every_file_that_can_list_them(tokenizer, tmp_path, name):
    (tmp_path / name).write_text(json.dumps({"eos_token_id": [1, 4]}))
    assert stop_token_ids(tokenizer, str(tmp_path), ()) == (1, 4)


def test_the_end_tokens_of_a_hub_name_are_those_of_its_files(tokenizer, tmp_path, monkeypatch):
    repository = tmp_path / "models--someone--tiny-chat"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    (snapshot / "generation_config.json").write_text('{"eos_token_id": [1, 4]}')
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert stop_token_ids(tokenizer, "someone/tiny-chat", ()) == (1, 4)
    with pytest.raises(ModelError, match="'someone/other' is not a local directory, and download"):
        stop_token_ids(tokenizer, "someone/other", ())


def test_every_token_needs_a_row_of_the_embedding(tmp_path):
    tokenizer = character_tokenizer()  # 47 tokens
    (tmp_path / "config.json").write_text('{"eos_token_id": 47}')
    check_rows(tokenizer, 47, "m")
    with pytest.raises(ConfigError, match=r"end token 47 of .* has no row .*, which has 47; corr"):
        special_ids(tokenizer, str(tmp_path), (), 47)
    assert special_ids(tokenizer, str(tmp_path), (), 48) == ((1, 47), 0)
    tokenizer.add_special_tokens({"pad_token": "<new>"})
    with pytest.raises(ConfigError, match=r"token '<new>' .* has the id 47, .* has 47 rows; add"):
        check_rows(tokenizer, 47, "m")


def test_invalid_stop_tokens_are_refused(tokenizer, tmp_path):
    with pytest.raises(ConfigError, match=r"'ab', which is not one token .* but 2: \['a', 'b'\]"):
        stop_token_ids(tokenizer, str(tmp_path), ("ab",))
    with pytest.raises(ConfigError, match=r"'É', which is not one token"):
        stop_token_ids(tokenizer, str(tmp_path), ("É",))  # the unknown token is one token too
    with pytest.raises(ConfigError, match="'', which is not one token"):
        stop_token_ids(tokenizer, str(tmp_path), ("",))
    for value in ("2", [[1]], True, -1, 1.5, {"a": 1}):
        (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": value}))
        with pytest.raises(ConfigError, match=r"eos_token_id is .*; it must be a token id or"):
            stop_token_ids(tokenizer, str(tmp_path), ())
    for broken in ("{", "[]"):
        (tmp_path / "generation_config.json").write_text(broken)
        with pytest.raises(ConfigError, match=r"generation_config\.json cannot be read"):
            stop_token_ids(tokenizer, str(tmp_path), ())


def test_a_tokenizer_without_an_end_of_sequence_token_needs_a_stop_token(tmp_path):
    endless = character_tokenizer()
    endless.eos_token = None
    with pytest.raises(ConfigError, match="has no end-of-sequence token; set one in config"):
        stop_token_ids(endless, str(tmp_path), ())
    assert len(stop_token_ids(endless, str(tmp_path), ("\n",))) == 1


def test_padding_falls_back_to_the_end_of_sequence_token_and_then_to_zero():
    tokenizer = character_tokenizer()
    assert tokenizer.decode([pad_token_id(tokenizer)]) == "<pad>"
    tokenizer.pad_token = None
    assert tokenizer.decode([pad_token_id(tokenizer)]) == "<eos>"
    tokenizer.eos_token = None
    assert pad_token_id(tokenizer) == 0


def test_the_error_for_different_vocabularies_has_the_first_different_token():
    @dataclasses.dataclass
    class Tokenizer:
        vocabulary: dict

        def get_vocab(self):
            return self.vocabulary

    small, large = Tokenizer({"a": 0}), Tokenizer({"a": 0, "b": 1})
    check_same_vocabulary(cast(Any, small), cast(Any, small))
    with pytest.raises(
        ConfigError, match=r"token 'b' is 1 for the actor and absent .*\(1 differ\)"
    ):
        check_same_vocabulary(cast(Any, large), cast(Any, small))
