r"""The quickstart's tokenizer: one token per character, and one for \boxed{."""

import string
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PAD, EOS, UNKNOWN, BOXED = "<pad>", "<eos>", "<unk>", "\\boxed{"
VOCABULARY = (PAD, EOS, UNKNOWN, BOXED, "}", *string.digits, *"+-*/= \n", *string.ascii_lowercase)

# A chat is formatted as the problem and "=", like the plain prompt; system messages are ignored.
_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] != 'system' %}{{ message['content'] }}{% endif %}"
    "{% if message['role'] == 'user' %}={% endif %}"
    "{% endfor %}"
)


def make_tokenizer() -> PreTrainedTokenizerFast:
    r"""The tokenizer; it adds no special tokens. \boxed{ is not special, so decoding keeps it."""
    ids = {token: i for i, token in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    split = Regex(r"\\boxed\{|[\s\S]")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(split, behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNKNOWN,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        chat_template=_CHAT_TEMPLATE,
    )


def save_tokenizer(directory: Path) -> None:
    """Writes tokenizer.json, and tokenizer_config.json with the chat template."""
    make_tokenizer().save_pretrained(directory, save_jinja_files=False)
