"""Every notebook runs from top to bottom, its assertions included."""

import runpy
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.py"))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(notebook, capsys):
    runpy.run_path(str(notebook))
    assert capsys.readouterr().out


def test_there_are_notebooks():
    assert NOTEBOOKS
