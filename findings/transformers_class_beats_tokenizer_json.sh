#!/usr/bin/env bash
# transformers 5.23.0, tokenizers 0.23.3 (Python 3.11).
#
# Expected: AutoTokenizer takes tokenizer.json as it is; tokenizer_class in tokenizer_config.json names the
#   wrapper.
# Seen: with tokenizer_class Qwen2Tokenizer (or ...Fast) vocabulary and merges come from the file, but how text is
#   split comes from the class: digits one by one, although this file has no such rule. The same folder gives
#   other ids by the library tokenizers than by transformers. With PreTrainedTokenizerFast they agree. For
#   LlamaTokenizer with a byte-level file transformers notices and warns; here it says nothing.
# Who meets it: a tokenizer that was changed or trained anew in the folder of a Qwen model: training (with
#   transformers) and a server (with tokenizers) read the same prompt as other tokens.
#
# Exit status: 0 the behaviour is still there, 1 it changed, 2 the packages could not be installed.
set -u
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv" || exit 2
"$dir/venv/bin/pip" install -q --no-compile transformers==5.23.0 tokenizers==0.23.3 || exit 2
cd "$dir" || exit 2
venv/bin/python - <<'PYTHON'
import json

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

tokenizer = Tokenizer(models.BPE())
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()
trainer = trainers.BpeTrainer(
    vocab_size=330,
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    special_tokens=["<|endoftext|>"],
    show_progress=False,
)
tokenizer.train_from_iterator(["hello world how are you today 12345 the end."] * 5, trainer)
PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>").save_pretrained("model")
text = "hello world 12345"
by_file = Tokenizer.from_file("model/tokenizer.json").encode(text).tokens
print("tokenizers:", by_file)
tokens = {}
for name in ("PreTrainedTokenizerFast", "Qwen2TokenizerFast", "Qwen2Tokenizer"):
    config = json.load(open("model/tokenizer_config.json"))
    config["tokenizer_class"] = name
    json.dump(config, open("model/tokenizer_config.json", "w"))
    tokens[name] = AutoTokenizer.from_pretrained("model").tokenize(text)
    print(f"{name}:", tokens[name])
holds = tokens["PreTrainedTokenizerFast"] == by_file
holds = holds and tokens["Qwen2Tokenizer"] == tokens["Qwen2TokenizerFast"] != by_file
holds = holds and tokens["Qwen2Tokenizer"][-5:] == list("12345")

print("still so" if holds else "changed")
raise SystemExit(0 if holds else 1)
PYTHON
