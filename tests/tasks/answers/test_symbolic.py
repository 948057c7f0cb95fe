"""What math-verify is asked, and what not."""

from asyppo_jax.tasks.answers.symbolic import equal


def test_integrals_and_sums_are_compared():
    assert equal(r"\sum_{k=1}^{n} k", r"\frac{n(n+1)}{2}")
    assert not equal(r"\sum_{k=1}^{n} k", r"\frac{n(n-1)}{2}")


def test_it_is_not_asked_where_it_is_wrong():
    assert not equal(r"\int R - r", "0 R")  # it takes both letters for one
    assert not equal(r"\int x dx = y", "y")
    assert not equal("x" * 400, "x" * 400)
