"""The pages of docs/ and every README: current where they are made, and without a dead link."""

import re
from pathlib import Path

import pytest

from experiments.make_docs import pages

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path
    for folder in (".", "docs", "experiments", "notebooks")
    for path in (ROOT / folder).glob("*.md" if folder in (".", "docs") else "**/*.md")
)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.mark.parametrize("name", list(pages()))
def test_a_made_page_is_what_the_code_makes_of_it(name):
    made = (ROOT / "docs" / name).read_text()
    assert made == pages()[name], "run python -m experiments.make_docs"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    text = page.read_text()
    for link in _LINK.findall(text):
        if link.startswith("https://"):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), f"{page.name} links to {link}"
        if anchor:
            headings = [_anchor(h) for h in re.findall(r"^#+ (.+)$", target.read_text(), re.M)]
            assert anchor in headings, f"{page.name} links to {link}"


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_every_setting_that_a_page_names_exists():
    known = set(re.findall(r"^\| `(\w+)`", (ROOT / "docs" / "configs.md").read_text(), re.M))
    known |= set(re.findall(r"config\.(\w+)", (ROOT / "docs" / "configs.md").read_text()))
    for page in PAGES:
        for path in re.findall(r"(?:--|`)config((?:\.\w+)+)", page.read_text()):
            unknown = (
                set(path.strip(".").split(".")) - known - {"section", "field", "X", "json", "py"}
            )
            assert not unknown, f"{page.name} names config{path}"
