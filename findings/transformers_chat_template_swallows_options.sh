#!/usr/bin/env bash
# transformers 5.23.0, tokenizers 0.23.3 (Python 3.11).
#
# Expected: apply_chat_template takes the options of a tokenizer's call, or refuses those that it doesn't know.
# Seen: what it doesn't know goes to the template as a variable, and a template ignores what it doesn't use. So
#   padding_side="left", which tokenizer(...) obeys, pads right; add_generation_promt=True (misspelt) leaves the
#   prompt without the assistant's turn, and enable_thinking=False does nothing where the template has no such
#   switch. tokenizer(...) warns about or refuses unknown names. tokenizer_kwargs={"padding_side": "left"} works.
# Who meets it: batches for decoding: with padding at the right the model continues padding tokens; and a typing
#   error changes every prompt of a run.
#
# Exit status: 0 the behaviour is still there, 1 it changed, 2 the packages could not be installed.
set -u
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv" || exit 2
"$dir/venv/bin/pip" install -q --no-compile transformers==5.23.0 tokenizers==0.23.3 jinja2==3.1.6 || exit 2
cd "$dir" || exit 2
venv/bin/python - <<'PYTHON'
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

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
wrapped.chat_template = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
chats = [[{"role": "user", "content": text}] for text in ("hello", "hello world how are you")]
options = {"padding": True, "return_dict": True}
by_call = wrapped(["hello", "hello world how"], padding=True, padding_side="left")
by_template = wrapped.apply_chat_template(chats, padding_side="left", **options)
by_kwargs = wrapped.apply_chat_template(chats, tokenizer_kwargs={"padding_side": "left"}, **options)
first = [x["attention_mask"][0][0] for x in (by_call, by_template, by_kwargs)]
print("the shorter row begins with padding: call {}, template {}, tokenizer_kwargs {}".format(*[not x for x in first]))
plain = wrapped.apply_chat_template(chats[0], tokenize=False)
typo = wrapped.apply_chat_template(chats[0], tokenize=False, add_generation_promt=True)
right = wrapped.apply_chat_template(chats[0], tokenize=False, add_generation_prompt=True)
print(f"misspelt: {typo!r}, right: {right!r}")
holds = first == [0, 1, 0] and typo == plain != right

print("still so" if holds else "changed")
raise SystemExit(0 if holds else 1)
PYTHON
