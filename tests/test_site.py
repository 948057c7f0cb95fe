"""The documentation site: made without a warning, whole, and from this repository alone."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[1]


def make_site(source: Path, output: Path) -> subprocess.CompletedProcess[str]:
    options = ["--quiet", "--fail-on-warning", "--keep-going", "-c", str(ROOT / "docs")]
    return subprocess.run(
        [sys.executable, "-m", "sphinx", *options, "-d", f"{output}.cache", source, output],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("docs") / "site"
    made = make_site(ROOT, output)
    assert (made.returncode, made.stdout, made.stderr) == (0, "", "")
    return output


class Page(HTMLParser):
    """The ids of a page, its links, and the files that a browser loads with it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.ids.add(value)
            elif name == "href" and tag == "a" and value:
                self.links.append(value)
            elif name in ("src", "href") and tag != "a" and value:
                self.loaded.append(value)


def test_every_page_and_notebook_is_on_the_site(site):
    written = {str(path.relative_to(site)) for path in site.rglob("*.html")}
    sources = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md"]
    for folder, pattern in (
        ("docs", "*.md"),
        ("experiments", "*/README.md"),
        ("configs", "README.md"),
        ("notebooks", "*.ipynb"),
    ):
        sources += [str(path.relative_to(ROOT)) for path in (ROOT / folder).glob(pattern)]
    assert {re.sub(r"\.(md|ipynb)$", ".html", source) for source in sources} <= written
    assert (site / "index.html").read_text() == (site / "README.html").read_text()


def test_every_link_of_the_site_leads_somewhere(site):
    pages = {path.resolve(): Page(path) for path in site.rglob("*.html")}
    dead = []
    for path, page in pages.items():
        for link in page.links + page.loaded:
            if re.match(r"https?:|data:", link):
                continue
            file, _, anchor = unquote(link).partition("#")
            target = (path.parent / file.partition("?")[0]).resolve() if file else path
            known = target in pages and anchor in pages[target].ids
            if not target.is_file() or (anchor and not known):
                dead.append(f"{path.name}: {link}")
    assert dead == []


def test_nothing_is_loaded_from_another_host(site):
    for path in site.rglob("*.html"):
        assert not [one for one in Page(path).loaded if re.match("(https?:)?//", one)], path
    for path in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", path.read_text()), path


def test_equations_are_drawn(site):
    equations = (ROOT / "docs" / "method.md").read_text().count("```math")
    page = (site / "docs" / "method.html").read_text()
    assert equations > 5
    assert (
        len(re.findall(r'<div class="equation"><svg role="img" aria-label="[^"]', page))
        == equations
    )


@pytest.mark.parametrize(
    "notebook", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda p: p.stem
)
def test_a_notebook_has_its_code_and_its_outputs(site, notebook):
    page = (site / "notebooks" / f"{notebook.stem}.html").read_text()
    cells = json.loads(notebook.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    outputs = [output for cell in code for output in cell["outputs"]]
    pictures = [output for output in outputs if output["output_type"] != "stream"]
    assert page.count('<div class="highlight-python ') == len(code)
    assert page.count('<div class="output highlight-none ') == len(outputs) - len(pictures)
    assert page.count('src="data:image/png;base64,') == len(pictures) > 0


def test_a_formula_in_a_line_of_text_is_drawn_there(tmp_path):
    (tmp_path / "README.md").write_text("# Title\n\nThe loss {math}`L_t < 1` falls.\n")
    make_site(tmp_path, tmp_path / "site")
    page = (tmp_path / "site" / "README.html").read_text()
    assert '<p>The loss <span class="formula"><svg role="img" aria-label="L_t &lt; 1"' in page


def test_a_dead_link_or_a_page_without_an_entry_fails(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("# Title\n\n[a page](docs/none.md) [a heading](#none)\n")
    (tmp_path / "docs" / "forgotten.md").write_text("# Forgotten\n")
    made = make_site(tmp_path, tmp_path / "site")
    assert made.returncode == 1
    assert "'docs/none.md'" in made.stderr and "'none'" in made.stderr
    assert re.search(r"forgotten\.md: WARNING: document isn't included in any toctree", made.stderr)


def test_the_page_of_the_configs_has_each_file(site):
    page = (site / "configs" / "README.html").read_text()
    for file in (ROOT / "configs").glob("*.py"):
        assert f'id="{file.stem.replace("_", "-")}"' in page
    assert page.count('<div class="highlight-python ') == len(list((ROOT / "configs").glob("*.py")))
