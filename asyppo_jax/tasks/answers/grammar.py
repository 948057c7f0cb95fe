r"""Expressions, parsed from tokens by recursive descent.

    sum      [+ - \pm] product { (+ | - | \pm) product }
    product  factor { [* | /] factor }              a factor beside a factor is a product
    factor   primary { ! | % | ^ factor | ' }
    primary  number | letter | function argument | \frac{}{} | \sqrt[]{} | ( sum ) | | sum | | ...

A whole number beside a proper fraction of numbers is a mixed number: 2\frac{3}{5}, 2 3/5.
"""

from collections.abc import Sequence
from fractions import Fraction

from asyppo_jax.tasks.answers.cursor import Cursor
from asyppo_jax.tasks.answers.tokens import NotUnderstood, Token
from asyppo_jax.tasks.answers.values import (
    CALL,
    INFINITY,
    Apply,
    Expression,
    Number,
    Symbol,
    negative,
    terms,
)
from asyppo_jax.tasks.answers.words import FUNCTIONS

CALCULUS = ("int", "sum", "prod", "lim", "oint", "iint", "limsup", "liminf", "partial", "nabla")
_GREEK = [
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa",
    "lambda", "mu", "nu", "xi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega",
    "Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Upsilon", "Phi", "Psi", "Omega",
    "hbar", "ell", "aleph", "infty", "pi", "mho", "wp", "Re", "Im", "odot", "oplus", "circ",
    "top", "perp", "dagger", "prime", "naturals", "reals", "integers",
]  # fmt: skip
_ACCENTS = ("vec", "hat", "tilde", "dot", "ddot", "overline", "widehat", "acute", "check", "breve")
_ALPHABETS = ("mathbb", "mathcal", "mathfrak", "mathscr", "mathds")
_SHAPES = ("angle", "triangle", "measuredangle", "odot", "square", "widearc", "overarc")
_OPENING, _CLOSING = ("(", "[", "{", "|"), (")", "]", "}")
# Letters that are functions where brackets follow: f(x) is no product.
FUNCTION_LETTERS = "fgh"
MAX_DEPTH = 60


class Calculus(NotUnderstood):
    """A formula with an integral, a sum, a limit or the like, which this language lacks."""


def parse(tokens: Sequence[Token], functions: str = FUNCTION_LETTERS) -> Expression:
    """The expression of all tokens; a letter of `functions` before a bracket is a function.

    Raises:
        Calculus: it has an integral, a sum or a limit.
        NotUnderstood: it is no expression.
    """
    parser = _Parser(tokens, functions)
    expression = parser.sum()
    if parser.token is not None:
        raise NotUnderstood(f"{parser.token.text} where an expression should end")
    return expression


class _Parser(Cursor):
    def __init__(self, tokens: Sequence[Token], functions: str) -> None:
        super().__init__(tokens)
        self.functions = functions
        self.depth, self.bars = 0, 0

    # --- operators -----------------------------------------------------------------------------

    def sum(self) -> Expression:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise NotUnderstood("an expression that is nested too deeply")
        result: Expression | None = None
        while True:
            token = self.token
            if token is not None and token.is_command("pm", "mp"):
                self.at += 1
                both = Apply("pm", (self.product(),))
                result = both if result is None else terms("+", result, both)
            elif token is not None and (result is None or token.is_sign("+", "-")):
                signs = 0
                while (sign := self.token) is not None and sign.is_sign("+", "-"):
                    signs += sign.text == "-"
                    self.at += 1
                product = self.product()
                product = negative(product) if signs % 2 else product
                result = product if result is None else terms("+", result, product)
            else:
                break
        self.depth -= 1
        if result is None:
            raise NotUnderstood("an empty expression")
        return result

    def product(self) -> Expression:
        mixed = self.mixed_number()
        result = self.factor() if mixed is None else mixed
        while (token := self.token) is not None:
            if self.take("*"):
                negated = self.take("-")
                factor = self.factor()
                result = terms("*", result, negative(factor) if negated else factor)
            elif self.take("/", ":"):
                result = terms("/", result, self.factor())
            elif self.starts_factor(token):
                before = self.tokens[self.at - 1]
                if token.kind == "number" and (
                    before.kind == "number" or (not token.space and before.kind == "letter")
                ):
                    raise NotUnderstood("a number beside what it cannot be multiplied with")
                result = terms("*", result, self.factor())
            else:
                break
        return result

    def starts_factor(self, token: Token) -> bool:
        if token.kind in ("number", "letter"):
            return True
        if token.kind == "sign":
            return token.text in ("(", "[", "{") or (token.text == "|" and not self.bars)
        opens = ("frac", "sqrt", "cbrt", "binom", "lfloor", "lceil", "begin", "pmod")
        known = (*_GREEK, *_ACCENTS, *_ALPHABETS, *_SHAPES, *FUNCTIONS, *CALCULUS, *opens)
        return token.kind == "command" and token.text in known

    def mixed_number(self) -> Expression | None:
        whole, beside = self.token, self.ahead(1)
        if whole is None or whole.kind != "number" or whole.value is None or beside is None:
            return None
        if whole.digits or whole.value.denominator != 1 or whole.value == 0:
            return None
        start, self.at = self.at, self.at + 1
        fraction: Fraction | None = None
        if beside.is_command("frac"):
            quotient = self.factor()
            if isinstance(quotient, Apply) and quotient.function == "/":
                fraction = _proper(*quotient.arguments)
        elif beside.kind == "number" and beside.space and self.ahead(1) is not None:
            numerator, slash, denominator = self.next(), self.next(), self.token
            if slash.is_sign("/") and denominator is not None and denominator.kind == "number":
                self.at += 1
                fraction = _proper(_number(numerator), _number(denominator))
        if fraction is None:
            self.at = start
            return None
        return Number(whole.value + fraction)

    def factor(self) -> Expression:
        if self.token is not None and self.token.is_sign("+", "-"):  # 2 \cdot -3, x^{...} of a sign
            sign = self.next()
            inner = self.factor()
            return negative(inner) if sign.text == "-" else inner
        result = self.primary()
        while (token := self.token) is not None:
            if token.is_sign("!"):
                self.at += 1
                result = Apply("factorial", (result,))
            elif token.is_sign("%") or token.is_command("%"):
                self.at += 1
                result = Apply("/", (result, Number(Fraction(100))))
            elif token.is_sign("^"):
                self.at += 1
                result = self.power(result)
            else:
                break
        return result

    def power(self, base: Expression) -> Expression:
        start = self.at
        braces = self.take("{")
        if self.take("circ"):
            if braces:
                self.expect("}")
            return Apply("degree", (base,))
        if self.take("prime"):
            raise NotUnderstood("a prime at an expression")
        self.at = start
        return Apply("^", (base, self.exponent()))

    def exponent(self) -> Expression:
        if self.take("{"):
            exponent = self.sum()
            self.expect("}")
            return exponent
        if self.take("-"):
            return negative(self.primary())
        return self.primary()

    # --- operands ------------------------------------------------------------------------------

    def primary(self) -> Expression:
        token = self.next()
        if token.kind == "number":
            return _number(token)
        if token.kind == "letter":
            return self.letter(token)
        if token.kind == "sign":
            return self.bracketed(token)
        if token.kind == "command":
            return self.command(token)
        raise NotUnderstood(f"{token.text} in an expression")

    def bracketed(self, token: Token) -> Expression:
        if token.text == "|":
            self.bars += 1
            inner = self.sum()
            self.expect("|")
            self.bars -= 1
            return Apply("abs", (inner,))
        if token.text not in ("(", "[", "{"):
            raise NotUnderstood(f"{token.text} in an expression")
        bars, self.bars = self.bars, 0
        inner = self.sum()
        self.bars = bars
        if token.text == "{" and self.take("choose"):
            inner = Apply("binom", (inner, self.sum()))
        self.expect(_CLOSING[_OPENING.index(token.text)])
        return inner

    def letter(self, token: Token) -> Expression:
        name = token.text + self.index()
        opens = self.token is not None and self.token.is_sign("(")
        if opens and (token.text in self.functions or self._has_comma()):
            return Apply(f"{CALL} {name}", self.arguments())
        return Symbol(name)

    def _has_comma(self) -> bool:
        """Whether the bracket that opens here has several members, as F(1, 1) has."""
        depth = 0
        for token in self.tokens[self.at :]:
            depth += {"(": 1, ")": -1}.get(token.text, 0)
            if depth == 0:
                return False
            if depth == 1 and token.is_sign(","):
                return True
        return False

    def group(self) -> Expression:
        """One argument of a command: a group in braces, or one primary."""
        if self.take("{"):
            inner = self.sum()
            self.expect("}")
            return inner
        return self.primary()

    def arguments(self) -> tuple[Expression, ...]:
        """Arguments in round brackets, separated by commas."""
        self.expect("(")
        bars, self.bars = self.bars, 0
        values = [self.sum()]
        while self.take(",", ";"):
            values.append(self.sum())
        self.bars = bars
        self.expect(")")
        return tuple(values)

    def command(self, token: Token) -> Expression:
        name = token.text
        if name in CALCULUS:
            raise Calculus(f"\\{name} in an expression")
        if name == "infty":
            return INFINITY
        if name in _GREEK:
            return Symbol(name + self.index())
        if name in _ALPHABETS:
            return Symbol(f"{name} {self.raw_argument()}{self.index()}")
        if name in _ACCENTS:
            return Symbol(f"{name} {self.raw_argument()}{self.index()}")
        if name in _SHAPES:
            return Symbol(name + " " + self.shape())
        if name == "frac":
            return terms("/", self.group(), self.group())
        if name == "binom":
            arguments = self.arguments() if self.token and self.token.is_sign("(") else ()
            return Apply("binom", arguments or (self.group(), self.group()))
        if name in ("sqrt", "cbrt"):
            return self.root(name)
        if name in ("lfloor", "lceil"):
            inner = self.sum()
            self.expect("rfloor" if name == "lfloor" else "rceil")
            return Apply("floor" if name == "lfloor" else "ceil", (inner,))
        if name in FUNCTIONS or name == "factorial":
            return self.function(name)
        raise NotUnderstood(f"\\{name} in an expression")

    def root(self, name: str) -> Expression:
        degree: Expression = Number(Fraction(3 if name == "cbrt" else 2))
        if name == "sqrt" and self.take("["):
            degree = self.sum()
            self.expect("]")
        return Apply("root", (self.group(), degree))

    def function(self, name: str) -> Expression:
        base: tuple[Expression, ...] = ()
        power: Expression | None = None
        while (token := self.token) is not None and token.is_sign("_", "^"):
            self.at += 1
            if token.text == "_":
                base = (self.group(),)
            else:
                power = self.exponent()
        if power == Number(Fraction(-1)) and name in ("sin", "cos", "tan", "cot", "sec", "csc"):
            name, power = "arc" + name, None
        if self.token is not None and self.token.is_sign("("):
            arguments = self.arguments()
        else:
            arguments = (self.argument(),)
        result = Apply(name, (*arguments, *base))
        return result if power is None else Apply("^", (result, power))

    def argument(self) -> Expression:
        """The argument of a function without brackets: the factors beside it."""
        if self.token is not None and (self.token.is_sign("{", "|") or self.token.is_sign("-")):
            return self.factor()
        result = self.factor()
        while (token := self.token) is not None and self.starts_factor(token):
            if token.text in FUNCTIONS or token.is_sign("(", "["):
                break
            if token.kind == "number":
                raise NotUnderstood("two numbers side by side")
            result = terms("*", result, self.factor())
        return result


def _number(token: Token) -> Number:
    if token.value is None:
        raise NotUnderstood(f"{token.text} in an expression")
    return Number(token.value, token.digits)


def _proper(numerator: Expression, denominator: Expression) -> Fraction | None:
    """The fraction if both are whole numbers, the first one smaller."""
    if not (isinstance(numerator, Number) and isinstance(denominator, Number)):
        return None
    whole = numerator.value.denominator == denominator.value.denominator == 1
    if not whole or numerator.digits or denominator.digits:
        return None
    if not 0 < numerator.value < denominator.value:
        return None
    return numerator.value / denominator.value
