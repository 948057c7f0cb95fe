#!/usr/bin/env bash
# transformers 5.23.0, tokenizers 0.23.3 (Python 3.11).
#
# Expected: truncation=True, max_length=4 is an option of that one call.
# Seen: the call sets it on the Rust tokenizer, where it stays until the next call, and save_pretrained writes
#   it to tokenizer.json, with the padding. transformers itself ignores it when it loads the file; the library
#   tokenizers, and what is built on it, obeys: each prompt is cut to 4 tokens and batches are padded.
# Who meets it: a training script that saves its tokenizer beside the weights after it has tokenized a batch. The
#   model is right in every check with transformers and reads cut prompts in a server that loads
#   tokenizer.json. A call without truncation before the save clears it.
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
wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|endoftext|>")
text = "hello world how are you today"
length = len(wrapped(text)["input_ids"])
wrapped([text, "hello"], truncation=True, max_length=4, padding=True)
wrapped.save_pretrained("model")
saved = json.load(open("model/tokenizer.json"))
print("tokenizer.json: truncation", saved["truncation"], "padding", saved["padding"])
by_file = Tokenizer.from_file("model/tokenizer.json")
cut = len(by_file.encode(text).ids)
padded = [len(x.ids) for x in by_file.encode_batch(["hello", "hello world"])]
again = len(AutoTokenizer.from_pretrained("model")(text)["input_ids"])
print(f"{length} tokens; by tokenizers {cut}, by transformers {again}; a batch has {padded}")
wrapped(text)
wrapped.save_pretrained("cleared")
cleared = len(Tokenizer.from_file("cleared/tokenizer.json").encode(text).ids)
holds = cut == 4 < length == again == cleared and padded[0] == padded[1]

print("still so" if holds else "changed")
raise SystemExit(0 if holds else 1)
PYTHON
