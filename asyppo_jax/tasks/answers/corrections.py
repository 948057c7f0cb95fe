r"""References of the shipped benchmarks that do not say what is meant, with a corrected reading.

(reference, as it is read too, why). A row is found by its reference, because files and the hub
number their rows differently.
"""

_TABLE = (
    ("$t(0,4]$", "(0,4]", "OlympiadBench: the letter is the one that the interval is for"),
    ("$221,$8$", "221, 8", "OlympiadBench: three dollar signs; two values are meant, not money"),
    (r"$\frac{1}{2},\sqrt{x}$", r"\frac{1}{2}\sqrt{x}", "OlympiadBench: a product, torn apart"),
    (r"0.003^{\prime \prime}", "0.003", "MinervaMath: arc seconds are a unit"),
)  # fmt: skip
CORRECTED = {reference: (reading,) for reference, reading, _ in _TABLE}
