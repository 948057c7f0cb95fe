"""Tokens of an answer, and what the reference lets the same spelling mean."""

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

Kind = Literal["number", "numeral", "clock", "letter", "word", "command", "sign"]


class NotUnderstood(ValueError):
    """The text is not written in the language of answers."""


@dataclass(frozen=True)
class Context:
    """What the reference lets the same letters and commas of an answer mean."""

    letters: frozenset[str] = frozenset()  # of the reference: such runs of letters are products
    comma_groups: bool = True  # `1,200` is one number, not a list of two
    powers_of_ten: bool = True  # `2e-1` is 0.2, not twice Euler's number less one
    bare_units: bool = False  # `30 N`: the reference has no letters, so N is a unit


@dataclass(frozen=True)
class Token:
    """One token. `text` has one spelling per meaning; `value` and `digits` belong to numbers."""

    kind: Kind
    text: str
    space: bool = False  # a blank stands in front of it
    value: Fraction | None = None
    digits: int = 0  # significant digits of a number with a decimal point; 0: it is exact
    parts: tuple[str, ...] = field(default=())  # (digits, base) or (hours, minutes, half of day)

    def is_sign(self, *texts: str) -> bool:
        return self.kind == "sign" and self.text in texts

    def is_command(self, *texts: str) -> bool:
        return self.kind == "command" and self.text in texts

    def is_word(self, *texts: str) -> bool:
        return self.kind == "word" and self.text.lower() in texts
