"""Small mutations of values, texts, bytes and JSON."""

import random
from typing import Any

_NUMBERS = (0, -1, 1, 2, 3, 0.5, -0.5, 1e-50, 1e20, 10**20, 2**31, 2**63, -(2**63))
_NUMBERS += (float("nan"), float("inf"), -float("inf"))
_TEXTS = ("", "x", "0", "None", "nan", "\0", "\ud800", "é" * 300, "../..", "gs://", "a:b", "{")
_TEXTS += ("{problem}", "(", "%s", "https://x/y", "json:dumps", "default", "llama3", "\n", "<eos>")
_OTHERS: tuple[Any, ...] = (None, True, False, [], {}, [1], [[1]], ["x"], {"a": 1}, [None])


def any_value(rng: random.Random) -> Any:
    """A number, a text or something else that few places expect."""
    return rng.choice(rng.choice((_NUMBERS, _TEXTS, _OTHERS)))


def near_value(rng: random.Random, value: Any) -> Any:
    """A value that may do in place of another one, or any other."""
    if isinstance(value, int | float) and not isinstance(value, bool) and rng.random() < 0.6:
        return type(value)(value * rng.choice((0, 0.5, 2, 3, 7, -1, 100)) + rng.choice((0, 0, 1)))
    if isinstance(value, bool) and rng.random() < 0.8:
        return not value
    return any_value(rng)


def change_json(rng: random.Random, values: Any) -> str:
    """Replaces, removes or adds one entry somewhere in a JSON object."""
    inner: Any = values
    path = ""
    while True:
        keys: list[Any] = list(inner) if isinstance(inner, dict) else [*range(len(inner))]
        key = rng.choice(keys)
        if not isinstance(inner[key], dict | list) or not inner[key] or rng.random() < 0.3:
            break
        inner, path = inner[key], f"{path}.{key}"
    if rng.random() < 0.3:
        del inner[key]
        return f"{path}.{key} removed"
    if isinstance(inner, dict) and rng.random() < 0.2:
        key = rng.choice(("quantization_config", "rope_scaling", "layer_types", "eos_token_id"))
    inner[key] = any_value(rng)
    return f"{path}.{key} = {inner[key]!r}"


def mutated_text(rng: random.Random, text: str) -> str:
    """A text with something put in, and perhaps a character less."""
    at = rng.randrange(len(text) + 1)
    return text[:at] + rng.choice((*_TEXTS, ".", "=")) + text[at + rng.randint(0, 2) :]


def mutated_bytes(rng: random.Random, content: bytes) -> bytes:
    """Cut, flipped, or with something put in."""
    at = rng.randrange(len(content) + 1)
    match rng.randrange(4):
        case 0:
            return content[:at]
        case 1:
            flipped = bytes([rng.randrange(256) for _ in range(rng.randint(1, 4))])
            return content[:at] + flipped + content[at + len(flipped) :]
        case 2:
            return content[:at] + rng.choice((b"\0", b"\xff", b"[", b"{", b"9" * 50)) + content[at:]
        case _:
            end = min(len(content), at + rng.randint(1, 20))
            return content[:at] + content[end:]
