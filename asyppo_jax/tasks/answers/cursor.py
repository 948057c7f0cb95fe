r"""Steps through tokens, and the names of letters: x, x_1, x', \angle ABC."""

from collections.abc import Sequence

from asyppo_jax.tasks.answers.tokens import NotUnderstood, Token


class Cursor:
    """A place among tokens."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self.tokens, self.at = tokens, 0

    @property
    def token(self) -> Token | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def ahead(self, steps: int) -> Token | None:
        place = self.at + steps
        return self.tokens[place] if place < len(self.tokens) else None

    def next(self) -> Token:
        token = self.token
        if token is None:
            raise NotUnderstood("an expression that ends too early")
        self.at += 1
        return token

    def take(self, *texts: str) -> bool:
        """Steps over a sign or command with one of these texts."""
        token = self.token
        if token is not None and (token.is_sign(*texts) or token.is_command(*texts)):
            self.at += 1
            return True
        return False

    def expect(self, text: str) -> None:
        if not self.take(text):
            raise NotUnderstood(f"{text} is missing")

    def index(self) -> str:
        """What follows a letter as a part of its name: `_1`, `_{max}`, `'`."""
        name = ""
        while (token := self.token) is not None:
            if token.is_sign("'") or token.is_command("prime"):
                self.at += 1
                name += "'"
            elif token.is_sign("^") and self._primes():
                name += "'"
            elif token.is_sign("_"):
                self.at += 1
                name += "_" + self.raw_argument()
            else:
                break
        return name

    def _primes(self) -> bool:
        start = self.at
        self.at += 1
        braces, count = self.take("{"), 0
        while self.take("prime", "'", "*"):
            count += 1
        if count and (not braces or self.take("}")):
            return True
        self.at = start
        return False

    def raw_argument(self) -> str:
        """The texts of a group in braces, or of one token."""
        if not self.take("{"):
            return self.next().text
        texts, depth = [], 1
        while depth:
            token = self.next()
            depth += {"{": 1, "}": -1}.get(token.text, 0) if token.kind == "sign" else 0
            texts.append(token.text)
        return "".join(texts[:-1])

    def shape(self) -> str:
        letters = []
        while (token := self.token) is not None and token.kind == "letter":
            self.at += 1
            letters.append(token.text + self.index())
        return "".join(letters)
