"""Units behind a number: their sizes, their quantities, and the phrases that name them.

A unit that the table knows counts: 3 km is not 3 m, and is 3,000 m. Any other noun behind a number
("apples", "square tiles") is ignored, unless one of its words changes the value ("7 or more").
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from asyppo_jax.tasks.answers.tokens import Token
from asyppo_jax.tasks.answers.words import CONDITIONS, COPULAS, OBSTACLES

_LENGTH, _TIME, _MASS = "length", "time", "mass"
MAX_WORDS = 6  # behind a number; a longer text is a sentence, not a unit


@dataclass(frozen=True)
class Unit:
    """A known unit: its `size` in base units, and the powers of its base quantities."""

    size: Fraction
    powers: tuple[tuple[str, int], ...]

    def times(self, other: "Unit", power: int) -> "Unit":
        """The unit self * other**power."""
        powers = dict(self.powers)
        for name, exponent in other.powers:
            powers[name] = powers.get(name, 0) + exponent * power
        kept = tuple(sorted((name, exponent) for name, exponent in powers.items() if exponent))
        return Unit(self.size * other.size**power, kept)


# Names -> (size, powers of base quantities). A plural with -s needs no entry.
_TABLE: dict[str, tuple[Fraction | int, dict[str, int]]] = {
    "mm millimeter millimetre": (Fraction(1, 1000), {_LENGTH: 1}),
    "cm centimeter centimetre": (Fraction(1, 100), {_LENGTH: 1}),
    "dm decimeter decimetre": (Fraction(1, 10), {_LENGTH: 1}),
    "m meter metre mètre": (1, {_LENGTH: 1}),
    "km kilometer kilometre": (1000, {_LENGTH: 1}),
    "nm nanometer": (Fraction(1, 10**9), {_LENGTH: 1}),
    "inch inches in": (Fraction(254, 10000), {_LENGTH: 1}),
    "foot feet ft": (Fraction(3048, 10000), {_LENGTH: 1}),
    "yard yd": (Fraction(9144, 10000), {_LENGTH: 1}),
    "mile mi": (Fraction(1609344, 1000), {_LENGTH: 1}),
    "ms millisecond": (Fraction(1, 1000), {_TIME: 1}),
    "s sec second seconde sekunde": (1, {_TIME: 1}),
    "min minute": (60, {_TIME: 1}),
    "h hr hour heure stunde": (3600, {_TIME: 1}),
    "day": (86400, {_TIME: 1}),
    "week wk": (604800, {_TIME: 1}),
    "month": (1, {"month": 1}),
    "year yr": (12, {"month": 1}),
    "decade": (120, {"month": 1}),
    "mg milligram": (Fraction(1, 10**6), {_MASS: 1}),
    "g gram": (Fraction(1, 1000), {_MASS: 1}),
    "kg kilogram kilo": (1, {_MASS: 1}),
    "tonne": (1000, {_MASS: 1}),
    "ton": (1, {"ton": 1}),
    "lb lbs pound": (16, {"weight": 1}),
    "oz ounce": (1, {"weight": 1}),
    "ml milliliter millilitre": (Fraction(1, 10**6), {_LENGTH: 3}),
    "cl centiliter centilitre": (Fraction(1, 10**5), {_LENGTH: 3}),
    "l liter litre": (Fraction(1, 1000), {_LENGTH: 3}),
    "gal gallon": (16, {"fluid": 1}),
    "quart": (4, {"fluid": 1}),
    "pint": (2, {"fluid": 1}),
    "cup": (1, {"fluid": 1}),
    "dollar usd $ buck": (1, {"dollar": 1}),
    "cent ¢": (Fraction(1, 100), {"dollar": 1}),
    "euro eur €": (1, {"euro": 1}),
    "pence penny": (Fraction(1, 100), {"sterling": 1}),
    "£ gbp": (1, {"sterling": 1}),
    "yen jpy ¥": (1, {"yen": 1}),
    "rupee inr ₹": (1, {"rupee": 1}),
    "° degree deg": (1, {"angle": 1}),
    "arcmin arcminute": (Fraction(1, 60), {"angle": 1}),
    "arcsec arcsecond": (Fraction(1, 3600), {"angle": 1}),
    "rad radian": (1, {"radian": 1}),
    "celsius °c degc": (1, {"celsius": 1}),
    "fahrenheit °f degf": (1, {"fahrenheit": 1}),
    "kelvin": (1, {"kelvin": 1}),
    "n newton": (1, {_MASS: 1, _LENGTH: 1, _TIME: -2}),
    "j joule": (1, {_MASS: 1, _LENGTH: 2, _TIME: -2}),
    "kj kilojoule": (1000, {_MASS: 1, _LENGTH: 2, _TIME: -2}),
    "erg": (Fraction(1, 10**7), {_MASS: 1, _LENGTH: 2, _TIME: -2}),
    "cal calorie": (1, {"calorie": 1}),
    "kcal kilocalorie": (1000, {"calorie": 1}),
    "ev electronvolt": (1, {"electronvolt": 1}),
    "kev": (1000, {"electronvolt": 1}),
    "mev": (10**6, {"electronvolt": 1}),
    "w watt": (1, {_MASS: 1, _LENGTH: 2, _TIME: -3}),
    "kw kilowatt": (1000, {_MASS: 1, _LENGTH: 2, _TIME: -3}),
    "pa pascal": (1, {_MASS: 1, _LENGTH: -1, _TIME: -2}),
    "kpa kilopascal": (1000, {_MASS: 1, _LENGTH: -1, _TIME: -2}),
    "hz hertz": (1, {_TIME: -1}),
    "khz kilohertz": (1000, {_TIME: -1}),
    "mhz megahertz": (10**6, {_TIME: -1}),
    "v volt": (1, {"volt": 1}),
    "a amp ampere": (1, {"ampere": 1}),
    "ohm Ω": (1, {"ohm": 1}),
    "c coulomb": (1, {"coulomb": 1}),
    "mol mole": (1, {"mole": 1}),
    "k": (1, {"kelvin": 1}),
    "mph": (Fraction(1609344, 3600000), {_LENGTH: 1, _TIME: -1}),
    "kmh kph": (Fraction(1000, 3600), {_LENGTH: 1, _TIME: -1}),
    "% percent pct": (Fraction(1, 100), {}),
}
UNITS = {
    name: Unit(Fraction(size), tuple(sorted(powers.items())))
    for names, (size, powers) in _TABLE.items()
    for name in names.split()
}
NO_UNIT = Unit(Fraction(1), ())
PERCENT, DEGREE, RADIAN = UNITS["percent"], UNITS["degree"], UNITS["radian"]
DOLLAR = UNITS["dollar"]
CURRENCIES = {"$": DOLLAR, "euro": UNITS["euro"], "€": UNITS["euro"], "£": UNITS["gbp"]}
CURRENCIES |= {"pound": UNITS["gbp"], "¥": UNITS["yen"], "₹": UNITS["rupee"]}
# Where a temperature is meant, its letter is often left out.
_TEMPERATURES = {UNITS["celsius"].powers, UNITS["fahrenheit"].powers}


def is_unit(word: str) -> bool:
    """Whether the table knows the word, with or without the s of a plural."""
    return find_unit(word) is not None


def find_unit(word: str) -> Unit | None:
    """The unit of a word. Abbreviations of one letter keep their case: N is newton, n is not."""
    if len(word) == 1:
        capital = word in "NJWVACKL"
        return UNITS.get(word.lower()) if capital or word in "msghl%°$¢€£¥₹" else None
    word = word.lower().rstrip(".")
    return UNITS.get(word) or (UNITS.get(word[:-1]) if len(word) > 3 and word[-1] == "s" else None)


def read_unit(tokens: Sequence[Token]) -> Unit | None:
    """The unit that the tokens behind a number name; None for nouns that the table does not know.

    Raises:
        ValueError: the tokens are no unit, but change the value or say something of their own.
    """
    words = [token.text.lower() for token in tokens if token.kind == "word"]
    if len(words) > MAX_WORDS or not OBSTACLES.isdisjoint(
        words[:1] + words[2:] if _squared(words) else words
    ):
        raise ValueError("words that change the value stand behind it")
    if any(word in COPULAS or word in CONDITIONS for word in words):
        raise ValueError("a sentence stands behind the value")
    unit, sign, next_power, known = NO_UNIT, 1, 1, True
    items = _without_degrees(list(_powers(tokens)))
    for name, power in items:
        if name in ("/", "per", "a", "an", "each", "every"):
            sign = -1
        elif name in ("square", "sq", "cubic", "cu"):
            next_power = 3 if name[0] == "c" else 2
        elif name not in ("*", "of", "the", "in"):
            found = find_unit(name)
            known = known and found is not None
            if found is not None:
                unit = unit.times(found, sign * power * next_power)
            next_power = 1
    return unit if known and items else None


def _without_degrees(items: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """`degrees Celsius` as `Celsius`."""
    names = [name.lower() for name, _ in items] + [""]
    temperature = ("celsius", "fahrenheit")
    return [
        item
        for item, name, following in zip(items, names, names[1:], strict=False)
        if not (name in ("degree", "degrees") and following in temperature)
    ]


def _squared(words: Sequence[str]) -> bool:
    return len(words) > 1 and words[1] in ("squared", "cubed")


def _powers(tokens: Sequence[Token]) -> Iterable[tuple[str, int]]:
    """(name, power) of each part: "cm", "^", "2" are ("cm", 2)."""
    i = 0
    while i < len(tokens):
        name = tokens[i].text
        if tokens[i].kind not in ("word", "letter") and name not in ("/", "*", "%", "$", "circ"):
            raise ValueError(f"{name} behind the value is no unit")
        power, i = 1, i + 1
        if i < len(tokens) and tokens[i].text in ("squared", "cubed"):
            power, i = (2 if tokens[i].text == "squared" else 3), i + 1
        elif i < len(tokens) and tokens[i].text == "^":
            end = next((j for j in range(i, len(tokens)) if tokens[j].value is not None), None)
            text = "" if end is None else "".join(token.text for token in tokens[i + 1 : end + 1])
            match = re.fullmatch(r"\{?(-?)(\d)", text)
            if match is None or end is None:
                raise ValueError("the power of a unit cannot be read")
            closed = end + 1 < len(tokens) and tokens[end + 1].text == "}"
            power, i = int(match[1] + match[2]), end + (2 if closed else 1)
        yield name if name != "circ" else "°", power


def ratio(reference: Unit | None, answer: Unit | None) -> Fraction | None:
    """By what a number with the answer's unit is multiplied to have the reference's unit.

    1 where one of them has no unit that is known. None: the units are of different quantities.
    """
    if reference is None or answer is None or reference.powers == answer.powers == ():
        return Fraction(1)
    if reference.powers == answer.powers:
        return answer.size / reference.size
    angle_and_temperature = {reference.powers, answer.powers} - _TEMPERATURES == {DEGREE.powers}
    return Fraction(1) if angle_and_temperature else None
