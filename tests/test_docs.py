"""The pages of docs/, every README and the notebooks: current where made, and no dead link."""

import json
import re
from pathlib import Path

import pytest

from experiments import make_docs

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path
    for folder in (".", "docs", "experiments", "notebooks")
    for path in (ROOT / folder).glob("*.md" if folder in (".", "docs") else "**/*.md")
)
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CODE_BLOCK = re.compile(r"^(`{3,})[^\n]*\n.*?^\1$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", make_docs.PAGES)
def test_a_made_page_is_what_the_code_makes_of_it(name):
    made = (ROOT / "docs" / name).read_text()
    assert made == make_docs.PAGES[name](), "run python -m experiments.make_docs"


@pytest.mark.parametrize("page", PAGES + NOTEBOOKS, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    assert dead_links(page) == []


def dead_links(page: Path) -> list[str]:
    """The relative links of a page whose file, or whose heading in it, does not exist."""
    dead = []
    for link in _LINK.findall(_text(page)):
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        if not link.startswith("https://") and not (
            target.exists() and (not anchor or anchor in _anchors(target))
        ):
            dead.append(link)
    return dead


def _text(page: Path) -> str:
    """A page, or the text cells of a notebook, without blocks of code."""
    text = page.read_text()
    if page.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
        text = "\n\n".join(texts)
    return _CODE_BLOCK.sub("", text)


def _anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    anchors: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", _text(page), re.M):
        first = anchor = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        count = 0
        while anchor in anchors:
            count += 1
            anchor = f"{first}-{count}"
        anchors.add(anchor)
    return anchors


def test_a_dead_link_is_found(tmp_path):
    page, other = tmp_path / "page.md", tmp_path / "other.ipynb"
    other.write_text(
        json.dumps({"cells": [{"cell_type": "markdown", "source": ["# A [b](c.md)"]}]})
    )
    page.write_text(
        "# Twice\n\n# Twice\n\n```\n# no heading\n[no link](nowhere.md)\n```\n\n"
        "[1](#twice-1) [2](other.ipynb) [3](https://example.org) [4](#no-heading) [5](none.md)"
    )
    assert dead_links(page) == ["#no-heading", "none.md"]
    assert dead_links(other) == ["c.md"]


@pytest.mark.parametrize("page", ["README.md", "docs/from_trl_or_verl.md"])
def test_a_whole_run_is_eight_lines_of_python(page):  # test_documented_commands.py runs them
    snippets = re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(), re.M | re.S)
    (program,) = (snippet for snippet in snippets if "get_config()" in snippet)
    assert sum(bool(line) for line in program.splitlines()) == 8


def test_every_setting_that_a_page_names_exists():
    known = set(re.findall(r"^\| `(\w+)`", (ROOT / "docs" / "configs.md").read_text(), re.M))
    known |= set(re.findall(r"config\.(\w+)", (ROOT / "docs" / "configs.md").read_text()))
    for page in PAGES:
        for path in re.findall(r"(?:--|`)config((?:\.[a-z]\w*)+)", page.read_text()):
            unknown = set(path.strip(".").split(".")) - known - {"section", "field", "json", "py"}
            assert not unknown, f"{page.name} names config{path}"
