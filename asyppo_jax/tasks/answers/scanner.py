r"""Tokens of an answer: numbers with their values, letters, words, commands and signs.

A number is read here once and for all: digits in groups, decimals, repeating decimals, e-notation,
numerals of another base, times of day. What a spelling may mean depends on the reference, so the
reader says it in a `Context`.
"""

import re
from fractions import Fraction

from asyppo_jax.tasks.answers.spelling import SYNONYMS
from asyppo_jax.tasks.answers.tokens import Context, Kind, NotUnderstood, Token
from asyppo_jax.tasks.answers.units import is_unit
from asyppo_jax.tasks.answers.words import BASES, FUNCTIONS, NAMES, SHORT_WORDS

MAX_EXPONENT = 2000  # of e-notation; far beyond every float


_CLOCK = re.compile(
    r"(\d{1,2})\s?:\s?([0-5]\d(?:\s?:\s?[0-5]\d)?)(?![\d:])(?:\s*(?:\\(?:text|mathrm|textrm|mbox)\s*\{)?\s*"
    r"([apAP])\.?\s?[mM]\b\.?\s*\}?)?"
)
_NUMERAL = re.compile(
    r"\(?((?=[0-9A-Z]*\d)[0-9A-Z]+|\d[0-9a-f]+)\)?\s*_\s*"
    r"(?:\{\s*(?:\\(?:text|mathrm)\s*\{\s*(?P<word>\w+)\s*\}|(?P<base>\w+))\s*\}|(?P<digit>\d))"
)
_PREFIXED = re.compile(r"0([xXbBoO])([0-9a-fA-F]+)(?![0-9a-zA-Z.])")
_GROUPED = r"\d{1,3}(?P<group>\{,\}|,|'| )\d{3}(?:(?P=group)\d{3})*(?!\d)"
_BAR = r"\\(?:overline|bar|dot|overset\{[^{}]*\})\s*(?:\{\s*(?P<bar>\d+)\s*\}|(?P<bar1>\d))"
_NUMBER = re.compile(rf"(?P<whole>{_GROUPED}|\d+|(?=\.\s?[\d\\(]))(?P<rest>\.\d*|\{{,\}}\d+)?")
_REPEATED = re.compile(rf"{_BAR}|\((?P<round>\d+)\)(?=\s*$)")
_DOTTED = re.compile(r"\s?(?:\\(?:ldots|dots|cdots)(?![a-zA-Z])|\.\.\.)")
_EXPONENT = re.compile(
    r"\s?(?:[eE]|\\(?:mathrm|text)\s*\{\s*[eE]\s*\})"
    r"(?:\{\s*(?P<braced>[+-]?\d+)\s*\}|(?P<power>[+-]?\d+))(?![\d.]|\s*\^)"
)
_TEXT = re.compile(
    r"\\(text|textrm|textbf|textit|textsf|texttt|textnormal|textup|mathrm|operatorname\*?|mbox|hbox|"
    r"mathop|rm)\s*\{"
)
_RUN = re.compile(r"[A-Za-z]+")
_ABBREVIATION = re.compile(r"(?:[A-Za-z]\.){2,}")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def tokenize(text: str, context: Context) -> list[Token]:
    """The tokens of a cleaned text; raises `NotUnderstood`."""
    return _Scanner(text, context).scan()


class _Scanner:
    def __init__(self, text: str, context: Context, *, prose: bool = False, depth: int = 0) -> None:
        self.text, self.context, self.prose = text, context, prose
        self.at, self.depth = 0, depth
        self.tokens: list[Token] = []

    def scan(self) -> list[Token]:
        while self.at < len(self.text):
            start = self.at
            while self.at < len(self.text) and self.text[self.at].isspace():
                self.at += 1
            if self.at == len(self.text):
                break
            self._token(space=self.at > start)
        return self.tokens

    def _add(self, length: int, kind: Kind, text: str, **fields: object) -> None:
        self.at += length
        self.tokens.append(Token(kind, text, **fields))  # pyright: ignore[reportArgumentType]

    def _token(self, space: bool) -> None:
        rest = self.text[self.at]
        if rest == "\\":
            self._command(space)
        elif rest.isascii() and (rest.isdigit() or rest == "." or rest == "("):
            self._number(space)
        elif rest.isalpha():
            self._letters(space)
        else:
            self._sign(space)

    def _sign(self, space: bool) -> None:
        text = self.text
        for sign in ("...", "**", "<=", ">=", "!=", "=>", "->", "=="):
            if text.startswith(sign, self.at):
                spelled = {"...": "ldots", "**": "^", "==": "=", "->": "to", "=>": "implies"}
                name = spelled.get(sign, {"<=": "le", ">=": "ge", "!=": "ne"}.get(sign, ""))
                kind: Kind = "sign" if name in "^=" else "command"
                return self._add(len(sign), kind, name, space=space)
        character = text[self.at]
        if character in "([":
            self.depth += 1
        elif character in ")]":
            self.depth -= 1
        return self._add(1, "sign", character, space=space)

    def _command(self, space: bool) -> None:
        inner = _TEXT.match(self.text, self.at)
        if inner:
            return self._text(inner, space)
        name = re.compile(r"\\([a-zA-Z]+|.)", re.DOTALL).match(self.text, self.at)
        if name is None:
            raise NotUnderstood("a backslash at the end")
        text = SYNONYMS.get(name[1], name[1])
        if name[1] in "{}":
            self.depth += 1 if name[1] == "{" else -1
            return self._add(2, "command", name[1], space=space)
        if name[1].isalpha() and text in ("and", "or"):
            return self._add(len(name[0]), "word", text, space=space)
        signs = ("<", ">", "|", "[", "]", "(", ")", "*", "/", ":", "^")
        kind: Kind = "sign" if text in signs else "letter" if text == "i" else "command"
        if name[1] in ("#", "&", "_"):
            kind = "sign"
        return self._add(len(name[0]), kind, text, space=space)

    def _text(self, start: re.Match[str], space: bool) -> None:
        r"""The content of `\text{...}` or `\mathrm{...}`: words, numbers, single letters."""
        end = closing_brace(self.text, start.end() - 1)
        content = self.text[start.end() : end]
        self.at = end + 1
        word = content.strip()
        upright = start[1] in ("mathrm", "operatorname", "operatorname*", "rm", "mathop")
        if re.fullmatch("[A-Za-z]", word) and (upright or word in "ei"):
            bare = bool(re.search(r"[\d}\s]$", self.text[: start.start()])) and is_unit(word)
            kind: Kind = "word" if bare and self.context.bare_units else "letter"
            return self._add(0, kind, word, space=space)
        after_number = bool(self.tokens) and self.tokens[-1].kind == "number"
        if after_number and is_unit(word):
            return self._add(0, "word", word, space=space)
        if word in FUNCTIONS or (upright and word in NAMES):
            return self._add(0, "command", NAMES.get(word, word), space=space)
        unit = after_number and all(map(is_unit, re.findall("[A-Za-z]+", word)))
        prose = not upright or unit or bool(re.fullmatch(r"[A-Za-z./ ]+", word))
        inner = _Scanner(content, self.context, prose=prose, depth=self.depth).scan()
        if inner and space:
            inner[0] = Token(**{**inner[0].__dict__, "space": True})
        self.tokens.extend(inner)

    def _letters(self, space: bool) -> None:
        abbreviation = _ABBREVIATION.match(self.text, self.at)
        if abbreviation:
            return self._add(len(abbreviation[0]), "word", abbreviation[0], space=space)
        run = _RUN.match(self.text, self.at)
        if run is None:  # a letter of another alphabet
            return self._add(1, "word", self.text[self.at], space=space)
        word = run[0]
        if self.prose:
            self._add(len(word), "word", word, space=space)
            self.at += self.text.startswith(".", self.at)  # `sq. units`
            return None
        after_number = bool(self.tokens) and self.tokens[-1].kind == "number"
        if after_number and word in FUNCTIONS and is_unit(word):  # `9 min`
            return self._add(len(word), "word", word, space=space)
        if word in NAMES and len(word) > 1:
            return self._add(len(word), "command", NAMES[word], space=space)
        function = next((f for f in FUNCTIONS if word.startswith(f) and len(f) < len(word)), "")
        argument = set(word[len(function) :])
        if function and (argument <= self.context.letters or argument <= set("xyz")):  # `sinx`
            return self._add(len(function), "command", function, space=space)
        if self._is_word(word, space):
            return self._add(len(word), "word", word, space=space)
        for letter in word:
            self._add(1, "letter", letter, space=space)
            space = False
        return None

    def _is_word(self, word: str, space: bool) -> bool:
        r"""Whether letters without `\text` are a word, not a product of letters."""
        if len(word) == 1:
            before = self.tokens[-1] if self.tokens else None
            follows = before is not None and (
                before.kind == "number" or (before.kind == "word" and is_unit(before.text))
            )
            return self.context.bare_units and space and follows and is_unit(word)
        if word.lower() in SHORT_WORDS:
            return True
        if set(word) <= self.context.letters:
            return False
        after_number = bool(self.tokens) and self.tokens[-1].kind == "number"
        if after_number and is_unit(word) and (self.context.bare_units or len(word) > 2):
            return True
        return len(word) >= 4 and not word.isupper()

    def _number(self, space: bool) -> None:
        for pattern, read in ((_CLOCK, self._clock), (_PREFIXED, self._prefixed)):
            match = pattern.match(self.text, self.at)
            if match:
                return read(match, space)
        numeral = _NUMERAL.match(self.text, self.at)
        if numeral and self._numeral(numeral, space):
            return None
        if self.text[self.at] == "(":
            return self._sign(space)
        if self.text.startswith("...", self.at):
            return self._sign(space)
        match = _NUMBER.match(self.text, self.at)
        if match is None or not match[0]:
            return self._sign(space)
        if match["group"] == "," and not self._may_group(match):
            match = re.compile(r"(?P<whole>\d+)(?P<rest>\.\d*)?").match(self.text, self.at)
            assert match is not None
        return self._decimal(match, space)

    def _may_group(self, match: re.Match[str]) -> bool:
        """Whether commas between digits set off thousands: not in brackets, not in longer lists."""
        if self.depth or not self.context.comma_groups:
            return False
        return self.text[self.at - 1 : self.at] != "," and not re.match(
            r",\d", self.text[match.end("whole") :]
        )

    def _decimal(self, match: re.Match[str], space: bool) -> None:
        whole = re.sub(r"\D", "", match["whole"])
        rest = match["rest"] or ""
        if rest == "." and re.match(r"\.\.", self.text[match.end() - 1 :]):
            rest = ""
        part = re.sub(r"\D", "", rest)
        end = match.start() + len(match["whole"]) + len(rest)
        value = Fraction(int(whole + part or "0"), 10 ** len(part))
        digits = len((whole + part).lstrip("0")) if rest not in ("", ".") else 0
        block, end = self._repeating(part, rest, end)
        if block:
            kept = (
                part[: len(part) - len(block)]
                if part.endswith(block) and "bar" not in rest
                else part
            )
            value = Fraction(int(whole + kept or "0"), 10 ** len(kept))
            value += Fraction(int(block), (10 ** len(block) - 1) * 10 ** len(kept))
            digits = 0
        exponent = _EXPONENT.match(self.text, end) if self.context.powers_of_ten else None
        power = exponent["braced"] or exponent["power"] if exponent else "0"
        if exponent and len(power) < 9 and abs(int(power)) <= MAX_EXPONENT:
            value *= Fraction(10) ** int(power)
            end = exponent.end()
            digits = digits or len(whole.lstrip("0"))
        self._add(end - self.at, "number", str(value), space=space, value=value, digits=digits)

    def _repeating(self, part: str, rest: str, end: int) -> tuple[str, int]:
        """The block of digits that repeats, and where it ends; "" if there is none."""
        if not rest:
            return "", end
        match = _REPEATED.match(self.text, end)
        if match:
            return match["bar"] or match["bar1"] or match["round"], match.end()
        dots = _DOTTED.match(self.text, end)
        block = re.search(r"(\d)\1\1$|(\d\d+?)\2$", part)
        if dots and block:
            return block[1] or block[2], dots.end()
        return "", end

    def _clock(self, match: re.Match[str], space: bool) -> None:
        parts = (str(int(match[1])), match[2].replace(" ", ""), (match[3] or "").lower())
        self._add(len(match[0].rstrip()), "clock", ":".join(parts), space=space, parts=parts)

    def _prefixed(self, match: re.Match[str], space: bool) -> None:
        base = {"x": "16", "b": "2", "o": "8"}[match[1].lower()]
        digits = match[2].lower().lstrip("0") or "0"
        self._add(len(match[0]), "numeral", f"{digits}_{base}", space=space, parts=(digits, base))

    def _numeral(self, match: re.Match[str], space: bool) -> bool:
        """Adds `41_7`; false if the index is no base that has these digits."""
        base = match["word"] or match["base"] or match["digit"]
        base = BASES.get(base.lower(), base)
        digits = match[1].lower().lstrip("0") or "0"
        if not base.isdigit() or not 2 <= int(base) <= 36:
            return False
        if max(_DIGITS.index(digit) for digit in digits) >= int(base):
            return False
        self._add(len(match[0]), "numeral", f"{digits}_{base}", space=space, parts=(digits, base))
        return True


def closing_brace(text: str, start: int) -> int:
    """The place of the brace that closes the one at `start`; raises `NotUnderstood`."""
    depth = 0
    for match in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, start):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0:
            return match.start()
    raise NotUnderstood("a brace that nothing closes")
