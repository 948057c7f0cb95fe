"""The rule of each type of reference; `experiments/graders/answers.jsonl` has more of each kind."""

import pytest

from asyppo_jax.tasks.answers.compare import equal
from asyppo_jax.tasks.answers.reading import read


@pytest.mark.parametrize(
    ("reference", "right", "wrong"),
    [
        ("(1,2)", r"\langle 1,2 \rangle", "(2,1)"),
        ("[0,1)", "0 \\le x < 1", "[0,1]"),
        ("4,7", r"\{7,4\}", "4,7,7"),
        (r"\{5\}", "5", r"\{5,6\}"),
        ("1, 2, \\ldots, n", "1, 2, \\dots, n", "1, 2, n"),
        ("y = 2x + 1", "2x - y + 1 = 0", "y = 2x - 1"),
        ("f(t) = t^2", "f(x) = x^2", "f(x) = x^3"),
        ("2x > 4", "x > 2", "x < 2"),
        (r"\begin{pmatrix} 1 & 2 \end{pmatrix}", "(1,2)", "(2,1)"),
        (r"\text{east}", r"\text{East}", "west"),
        ("x = 1, y = 2", "y = 2, x = 1", "x = 2, y = 1"),
    ],
)
def test_each_type_has_its_rule(reference: str, right: str, wrong: str):
    assert equal(read(reference), read(right))
    assert not equal(read(reference), read(wrong))
