#!/usr/bin/env bash
# transformers 5.23.0, tokenizers 0.23.3, jinja2 3.1.6 (Python 3.11).
#
# Expected: apply_chat_template(return_assistant_tokens_mask=True) marks the assistant's tokens that truncation
#   leaves.
# Seen: with truncation_side="left", once the start of the first answer is cut off, the mask is 0 everywhere. All
#   later answers are unmarked, although they are there in full. One token less cut, and all are marked.
#   With truncation_side="right" the answers that are left stay marked. There is no error and no warning.
# Who meets it: supervised training on conversations, cut on the left to keep the last answer. The longest
#   conversations add nothing to the loss, or the mean over their tokens is 0 / 0.
#
# Exit status: 0 the behaviour is still there, 1 it changed, 2 the packages could not be installed.
set -u
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv" || exit 2
"$dir/venv/bin/pip" install -q --no-compile transformers==5.23.0 tokenizers==0.23.3 jinja2==3.1.6 || exit 2
cd "$dir" || exit 2
venv/bin/python - <<'PYTHON'
import logging
import warnings

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

said = []
handler = logging.Handler(logging.WARNING)
handler.emit = lambda record: said.append(record.getMessage())
logging.getLogger("transformers").addHandler(handler)
warnings.showwarning = lambda message, *_: said.append(str(message))

tokenizer = Tokenizer(models.BPE())
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()
trainer = trainers.BpeTrainer(
    vocab_size=330,
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    special_tokens=["<|im_start|>", "<|im_end|>"],
    show_progress=False,
)
tokenizer.train_from_iterator(["what is two and three, and five and one more"] * 5, trainer)
wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>")
wrapped.chat_template = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] }}<|im_end|>{% endgeneration %}"
    "{% else %}{{ message['content'] }}<|im_end|>{% endif %}\n{% endfor %}"
)
messages = [
    {"role": "user", "content": "what is two and three"},
    {"role": "assistant", "content": "five"},
    {"role": "user", "content": "and one more"},
    {"role": "assistant", "content": "that is six"},
]


def marked(side, **kwargs):
    wrapped.truncation_side = side
    out = wrapped.apply_chat_template(
        messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True, **kwargs
    )
    ids, mask = out["input_ids"], out["assistant_masks"]
    spans = wrapped.decode([token for token, keep in zip(ids, mask) if keep])
    return ids, mask, spans


ids, mask, answers = marked("left")
first = mask.index(1)
print(f"not cut: {len(ids)} tokens, marked {answers!r}")
last = "that is six<|im_end|>"
said.clear()
results = {}
for side, cut in (("left", first), ("left", first + 1), ("right", 2)):
    kept, _, spans = marked(side, truncation=True, max_length=len(ids) - cut)
    has_last = last in wrapped.decode(kept)
    print(f"{cut} tokens cut on the {side}: marked {spans!r}; the last answer is there: {has_last}")
    results[side, cut] = spans, has_last
print(f"warnings: {said}")
holds = answers == f"five<|im_end|>{last}" and not said
holds = holds and results["left", first] == (answers, True)
holds = holds and results["left", first + 1] == ("", True)
holds = holds and results["right", 2][0].startswith("five<|im_end|>")

print("still so" if holds else "changed")
raise SystemExit(0 if holds else 1)
PYTHON
