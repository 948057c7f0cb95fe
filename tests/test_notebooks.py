"""The notebooks run from top to bottom, their assertions included, and their pairs are in step."""

import json
import runpy
import sys
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))
MAX_BYTES = 300_000
# Only with a display does matplotlib say that it shows nothing.
pytestmark = pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive:UserWarning")


def run(name: str, directory: Path, monkeypatch, **settings: str) -> dict:
    """Runs a notebook from its folder, as Jupyter does; `settings` replace its assignments."""
    text = (ROOT / "notebooks" / f"{name}.py").read_text()
    for setting, value in settings.items():
        (line,) = (one for one in text.splitlines() if one.startswith(f"{setting} = "))
        text = text.replace(line, f"{setting} = {value}")
    file = directory / f"{name}.py"  # a file, because a notebook may read the source of a function
    file.write_text(text)
    monkeypatch.chdir(ROOT / "notebooks")
    monkeypatch.setattr(sys, "path", list(sys.path))
    matplotlib.use("agg")
    try:
        return runpy.run_path(str(file))
    finally:
        plt.close("all")


def test_the_losses_are_those_worked_by_hand(tmp_path, monkeypatch):
    found = run("01_losses_as_functions", tmp_path, monkeypatch)
    assert found["gradient"].shape == (2, 3)


# The three share one short run; each test's worker would have to train its own.
@pytest.mark.slow
@pytest.mark.usefixtures("one_sampler")
def test_a_run_is_trained_looked_into_and_evaluated(tmp_path, monkeypatch, capsys):
    shorter = {"RUNS": f"Path({str(tmp_path / 'runs')!r})", "NUM_STEPS": "2"}
    trained = run("02_train_in_a_notebook", tmp_path, monkeypatch, **shorter)
    assert trained["summary"]["steps"] == 2 and len(trained["answers"]) == 32
    looked = run("03_look_inside_the_critics", tmp_path, monkeypatch, **shorter)
    assert looked["actor"].step == 2 and looked["values"].shape[:2] == (2, 128)
    shorter["NUM_SAMPLES"] = "2"
    evaluated = run("04_evaluate_a_checkpoint", tmp_path, monkeypatch, **shorter)
    assert evaluated["right"]["base"].shape == (64, 2)
    assert "avg@2" in capsys.readouterr().out


def cells(text: str) -> list[tuple[str, str]]:
    """The (kind, source) of each cell of a notebook in jupytext's percent format."""
    found = []
    for cell in text.split("\n# %%")[1:]:
        head, _, body = cell.partition("\n")
        kind = "markdown" if "[markdown]" in head else "code"
        lines = body.strip("\n").split("\n")
        if kind == "markdown":
            lines = [line.removeprefix("#").removeprefix(" ") for line in lines]
        found.append((kind, "\n".join(lines)))
    return found


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_its_pair_has_the_same_cells_and_small_clean_outputs(notebook):
    pair = notebook.with_suffix(".ipynb")
    paired = json.loads(pair.read_text())["cells"]
    sources = [(cell["cell_type"], "".join(cell["source"])) for cell in paired]
    assert sources == cells(notebook.read_text()), "see notebooks/README.md for how to renew it"
    assert pair.stat().st_size < MAX_BYTES
    outputs = [one for cell in paired for one in cell.get("outputs", [])]
    assert any("image/png" in one.get("data", {}) for one in outputs)
    assert not [
        one for one in outputs if one["output_type"] == "error" or one.get("name") == "stderr"
    ]


def test_all_notebooks_begin_in_the_same_way():
    first = {
        next(source for kind, source in cells(n.read_text()) if kind == "code") for n in NOTEBOOKS
    }
    assert len(NOTEBOOKS) == 4 and len(first) == 1
