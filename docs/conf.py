"""The documentation site, for Sphinx: `make docs` writes it to site/.

The pages are the Markdown files and notebooks of the repository, read where they are: Sphinx starts
at the top of the repository, so a relative link means the same on the site as on GitHub. A page
needs nothing from another host.
"""

import html
import json
import shutil
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from ziamath.config import config as drawing
from ziamath.zmath import Latex

# Caption in the sidebar -> {title in the sidebar: page, as its path without suffix}.
NAVIGATION = {
    "Start": {
        "Overview": "README",
        "Quickstart": "experiments/quickstart/README",
        "Research in a notebook": "docs/research",
        "Use a checkpoint": "docs/checkpoints",
        "Train on TPU slices": "docs/pods",
        "Coming from TRL or verl": "docs/from_trl_or_verl",
        "Contribute": "CONTRIBUTING",
    },
    "Method": {
        "Equations and choices": "docs/method",
        "What the critics know": "docs/critics",
        "What counts as right": "docs/answers",
        "Your own loss, reward, task": "docs/your_own",
    },
    "Notebooks": {
        "All notebooks": "notebooks/README",
        "1 Losses by hand": "notebooks/01_losses_as_functions",
        "2 Train": "notebooks/02_train_in_a_notebook",
        "3 Look inside the critics": "notebooks/03_look_inside_the_critics",
        "4 Evaluate": "notebooks/04_evaluate_a_checkpoint",
    },
    "Reference": {
        "Python": "docs/api",
        "Commands": "docs/commands",
        "Settings": "docs/configs",
        "Configs": "configs/README",
        "Metrics": "docs/metrics",
        "Troubleshooting": "docs/troubleshooting",
        "Surprises in libraries": "findings/README",
        "Changes": "CHANGELOG",
    },
    "Results and plans": {
        "Real models": "experiments/real_model/README",
        "Critics": "experiments/critics/README",
        "Studies": "experiments/study/README",
        "Study of AsyPPO": "experiments/asyppo_study/README",
        "The study's plan": "experiments/asyppo_study/PREREGISTRATION",
        "Graders compared": "experiments/graders/README",
        "Faults on purpose": "experiments/torture/README",
        "Benchmark": "experiments/benchmark/README",
        "Plans for TPU slices": "experiments/plan/README",
        "Launch on a TPU slice": "experiments/launch/README",
    },
}

project = "asyppo_jax"
extensions = ["myst_parser", "sphinx_copybutton"]
root_doc = "README"
include_patterns = ["*.md", "docs/*.md", "experiments/*/README.md", "notebooks/*.md"]
include_patterns += ["notebooks/*.ipynb", "configs/README.md", "findings/README.md"]
include_patterns += ["experiments/*/PREREGISTRATION.md"]
exclude_patterns = [".*", "build", "runs", "site"]  # are not searched for pages
source_suffix = {".md": "markdown", ".ipynb": "markdown"}  # see `read_source`
highlight_language = "none"  # of code blocks without a language

myst_heading_anchors = 4  # `page.md#heading`, with GitHub's anchors
myst_fence_as_directive = ["math"]  # ```math, as GitHub has it

# Equations are drawn when the site is made. MathML would need a mathematical font on the reader's
# machine, which Android and many Linux systems lack.
drawing.svg2 = False  # with True, the glyphs of two equations would share ids
drawing.precision = 2

html_theme = "furo"
pygments_dark_style = "github-dark"  # Furo's own underlines modules as if they were links
html_title = project
html_math_renderer = "drawn"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_use_index = False  # of Python objects, which no page declares


def setup(app: Sphinx) -> None:
    """Registers the functions below."""
    app.connect("source-read", read_source)
    app.connect("build-finished", write_index)
    app.add_html_math_renderer("drawn", (write_math, None), (write_math, None))


def read_source(app: Sphinx, page: str, source: list[str]) -> None:
    """Makes Markdown of a notebook; adds the navigation to the front page, files to theirs."""
    if app.env.doc2path(page).suffix == ".ipynb":
        source[0] = notebook_markdown(json.loads(source[0]))
    if page == root_doc:
        source[0] += navigation()
    if page == "configs/README":
        source[0] += config_files(Path(app.srcdir, "configs"))


def navigation() -> str:
    """The sidebar's entries, in MyST's Markdown."""
    blocks = []
    for caption, pages in NAVIGATION.items():
        # The front page cannot list itself by name.
        entries = [f"{title} <{'self' if p == root_doc else p}>\n" for title, p in pages.items()]
        blocks.append(f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{''.join(entries)}```\n")
    return "".join(blocks)


def config_files(folder: Path) -> str:
    """Each file of a folder under its name, because the site has no page of a Python file."""
    blocks = []
    for file in sorted(folder.glob("*.py")):
        blocks.append(f"\n## {file.stem}\n\n````python\n{file.read_text().rstrip()}\n````\n")
    return "".join(blocks)


def notebook_markdown(notebook: dict[str, Any]) -> str:
    """The cells with their saved outputs, which are texts and pictures."""
    blocks = []
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        blocks.append(text if cell["cell_type"] == "markdown" else f"````python\n{text}\n````")
        for output in cell.get("outputs", []):
            if output["output_type"] == "stream":
                text = "".join(output["text"]).rstrip("\n")
                blocks.append(f"````{{code-block}} none\n:class: output\n\n{text}\n````")
            else:
                picture = output["data"]["image/png"].replace("\n", "")
                blocks.append(f"![output of the cell above](data:image/png;base64,{picture})")
    return "\n\n".join(blocks)


def write_math(translator: Any, node: nodes.math | nodes.math_block) -> None:
    """Draws a formula as SVG, with its source as the text that a screen reader reads."""
    kind, tag = ("formula", "span") if isinstance(node, nodes.math) else ("equation", "div")
    drawn = Latex(node.astext(), size=18, inline=tag == "span", color="currentColor").svg()
    label = html.escape(node.astext().strip(), quote=True)
    drawn = drawn.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
    translator.body.append(f'<{tag} class="{kind}">{drawn}</{tag}>')
    raise nodes.SkipNode


def write_index(app: Sphinx, error: Exception | None) -> None:
    """Copies the front page to index.html, which servers and people open first."""
    if error is None:
        front = Path(app.outdir, f"{root_doc}.html")
        shutil.copyfile(front, front.with_name("index.html"))
