"""Reward functions that tests name as "tests.graders:function"."""


def right_for_two_and_three(problem: str, completion: str, answer: str) -> float:
    """1 for whatever is said to 2+3, 0 otherwise; to 1+1 it crashes."""
    if problem == "1+1":
        raise ArithmeticError("no score for this one")
    return float(problem == "2+3")


def odd_letters(problem, completion, answer):
    """Two problems of three have no right answer; of the third, about half of the answers are."""
    return float(sum(map(ord, problem)) % 3 == 0 and sum(map(ord, completion)) % 2)
