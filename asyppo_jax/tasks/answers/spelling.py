r"""Spellings that never change a meaning: fonts, colours, sizes, spaces, Unicode, delimiters.

`clean` gives LaTeX without them. It knows nothing of the reference, so whatever depends on it (is
`m` a unit, is `1,200` a list) is left to `reading`.
"""

import re

UNICODE = {
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-",
    "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∗": "*", "÷": r"\div ", "∕": "/", "⁄": "/",
    "±": r"\pm ", "∓": r"\mp ", "√": r"\sqrt ", "∞": r"\infty ", "°": r"^{\circ}", "º": r"^{\circ}",
    "≤": r"\le ", "≥": r"\ge ", "⩽": r"\le ", "⩾": r"\ge ", "≠": r"\ne ", "≈": r"\approx ",
    "∈": r"\in ", "∉": r"\notin ", "∪": r"\cup ", "∩": r"\cap ", "∖": r"\setminus ",
    "∅": r"\emptyset ", "ø": r"\emptyset ", "Ø": r"\emptyset ", "⟨": r"\langle ", "⟩": r"\rangle ",
    "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "…": r"\ldots ",
    "π": r"\pi ", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ",
    "λ": r"\lambda ", "μ": r"\mu ", "σ": r"\sigma ", "φ": r"\phi ", "ω": r"\omega ",
    "∠": r"\angle ",
    "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}",
    "ℂ": r"\mathbb{C}",
    "½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "¼": r"\frac{1}{4}",
    "¾": r"\frac{3}{4}", "′": "'", "’": "'", "″": "''", "⇒": r"\implies ", "→": r"\to ",
    "\u00a0": " ", "\u2002": " ", "\u2003": " ", "\u2007": " ", "\u2009": " ", "\u200a": " ",
    "\u202f": " ", "\u3000": " ", "\u200b": "", "\ufeff": "", "\u2060": "", "％": "%", "＝": "=",
    "，": ",", "。": ".", "（": "(", "）": ")",
}  # fmt: skip
_SUPERSCRIPT = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ", "0123456789-+n")
_SUBSCRIPT = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_UNICODE = str.maketrans(UNICODE)

# One name for commands that mean the same.
SYNONYMS = {
    "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "dbinom": "binom", "tbinom": "binom",
    "choose": "choose", "leq": "le", "leqslant": "le", "geq": "ge", "geqslant": "ge", "neq": "ne",
    "lt": "<", "gt": ">", "dots": "ldots", "cdots": "ldots", "dotsc": "ldots", "dotsb": "ldots",
    "lvert": "|", "rvert": "|", "vert": "|", "mid": "|", "lVert": "|", "rVert": "|", "Vert": "|",
    "varnothing": "emptyset", "O": "emptyset", "lbrace": "{", "rbrace": "}", "lbrack": "[",
    "rbrack": "]", "lparen": "(", "rparen": ")", "land": "and", "wedge": "and", "lor": "or",
    "vee": "or", "imath": "i", "backslash": "setminus", "varphi": "phi", "varepsilon": "epsilon",
    "vartheta": "theta", "lg": "lg", "arcsinh": "arsinh", "arccosh": "arcosh", "tg": "tan",
    "ast": "*", "star": "*", "colon": ":", "iff": "implies", "Rightarrow": "implies",
    "rightarrow": "to", "longrightarrow": "to", "mapsto": "to", "overrightarrow": "vec",
    "euro": "euro", "pounds": "pound",
    "textdollar": "$", "simeq": "approx", "bar": "overline", "N": "naturals", "R": "reals",
    "Z": "integers", "sp": "^", "times": "*", "cdot": "*", "div": "/", "textpercent": "%",
}  # fmt: skip

_FONTS = (
    r"\\(?:mathbf|boldsymbol|bm|pmb|mathit|mathsf|mathtt|mathnormal|underline|uline|underbrace|"
    r"overbrace|emph|ensuremath|boxed|fbox|mbox(?=\{\\\$)|displaylines|mathop|hbox(?=\{\$)|cancel|"
    r"mathbin|mathrel|mathord|smash|raisebox\{[^{}]*\})(?![a-zA-Z])\s*"
)
_COLOURS = r"\\(?:textcolor|colorbox|fcolorbox\{[^{}]*\})\s*(?:\[[^\]]*\])?\s*\{[^{}]*\}\s*"
_NOTHING = (
    r"\\(?:left|right|middle|[bB]igg?[lrm]?|displaystyle|textstyle|scriptstyle|limits|nolimits|"
    r"bf|rm|it|sf|tt|em|bfseries|itshape|normalsize|large|Large|LARGE|huge|small|tiny|strut|"
    r"mathstrut|centering|noindent|nonumber|notag|break|allowbreak|relax)(?![a-zA-Z])\s?"
    r"|\\(?:color|phantom|vphantom|hphantom|label|tag\*?)\s*\{[^{}]*\}"
)
_INFIX = re.compile(r"\\(over|choose)(?![a-zA-Z])")
_REPEATING_DOTS = re.compile(  # 0.\dot{3}\dot{6}, 0.\dot{1}42\dot{8}
    r"\\dot\s*\{?\s*(\d)\s*\}?(\d*)\\dot\s*\{?\s*(\d)\s*\}?"
)
_SPACES = (
    r"\\(?:quad|qquad|enspace|enskip|thinspace|medspace|thickspace|space|hfill|newline)(?![a-zA-Z])"
    r"|\\[hv]space\*?\{[^{}]*\}|(?<!\\)\\[,;:> ]|(?<!\\)\\/|~|&nbsp;"
)


def clean(text: str) -> str:
    """The text without fonts, sizes and delimiters, with one spelling of spaces and characters."""
    text = re.sub("[⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹ⁿ]+", lambda m: "^{" + m[0].translate(_SUPERSCRIPT) + "}", text)
    text = re.sub("[₀₁₂₃₄₅₆₇₈₉]+", lambda m: "_{" + m[0].translate(_SUBSCRIPT) + "}", text)
    text = text.translate(_UNICODE)
    text = re.sub(r"(?<!\\)\\(?:\(|\)|\[|\])", " ", text)
    text = re.sub(r"\s*\\(?:degrees?|textdegree)(?![a-zA-Z])", r"^{\\circ}", text)
    # A comma that was pulled together with its group of digits can only set off thousands.
    text = re.sub(r"(?<=\d),\\!\s*(?=\d{3})", "{,}", text).replace("\\!", "")
    text = re.sub(r"(?<=\d)\{?\\text\{,\}\}?(?=\d{3})", "{,}", text)
    text = re.sub(r"\\(?:text|mathrm|textbf)\s*\{([0-9A-Z]+)\}(?=\s*_)", r"\1", text)  # A5_{11}
    text = text.replace("{:}", ":")
    text = _REPEATING_DOTS.sub(r"\\overline{\1\2\3}", text)
    text = _prefixed(text)
    text = re.sub(r"\\[dtc]?frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}", text)
    text = re.sub(_COLOURS, "", text)
    text = re.sub(_FONTS, "", text)
    text = re.sub(_NOTHING, "", text)
    text = re.sub(_SPACES, " ", text)
    return strip_marks(_without_dollars(text))


def _prefixed(text: str) -> str:
    r"""`{1 \over 2}` as `{\frac{1}{2}}`, `{5 \choose 2}` as `{\binom{5}{2}}`."""
    while match := _INFIX.search(text):
        start, end = _group_around(text, match.start())
        name = {"over": "frac", "choose": "binom"}[match[1]]
        parts = text[start : match.start()], text[match.end() : end]
        text = rf"{text[:start]}\{name}{{{parts[0]}}}{{{parts[1]}}}{text[end:]}"
    return text


def _group_around(text: str, place: int) -> tuple[int, int]:
    """Where the content of the braces around a place starts and ends; without braces, the text."""
    start, end = 0, len(text)
    depth = 0
    for i in range(place - 1, -1, -1):
        depth += (text[i] == "}") - (text[i] == "{")
        if depth < 0:
            start = i + 1
            break
    depth = 0
    for i in range(place, len(text)):
        depth += (text[i] == "{") - (text[i] == "}")
        if depth < 0:
            end = i
            break
    return start, end


def _without_dollars(text: str) -> str:
    r"""Without the `$` of formulas; one that is left over, or escaped, is money: `\$`."""
    parts = re.split(r"(?<!\\)\$", text)
    if len(parts) % 2:
        return " ".join(parts) if len(parts) > 1 else text
    money = next((i for i, part in enumerate(parts) if i and re.match(r"\s*[\d.]", part)), None)
    if money is None:
        return " ".join(parts)
    return " ".join(parts[:money]) + r" \$" + " ".join(parts[money:])


def strip_marks(text: str) -> str:
    """Without the marks that surround an answer: bold of Markdown, quotes, final punctuation."""
    while True:
        before = text
        text = re.sub(r"^(?:\s|\\\\|`+|\*\*+|__|\"|“|”|:(?!\d))+", "", text)
        text = re.sub(r"(?:\s|\\\\|`+|\*\*+|__|\"|“|”)+$", "", text)
        text = re.sub(r"\\text\{\s*[.,;:!]?\s*\}$", "", text)
        if not re.search(r"\.\.\.$|(?:\\|,)[.,;:]$", text):
            text = re.sub(r"[.,;:]$", "", text)
        if text == before:
            return text
