"""Generates pages of docs/ from the code: `python -m experiments.make_docs`.

docs/configs.md lists every setting, from the dataclasses and comments of `config/settings.py`.
docs/api.md lists the names that `asyppo_jax` exports, by module, with signatures and docstrings. A
test checks that both are up to date. The source files are parsed; only the list of names is
imported.
"""

import ast
import io
import tokenize
from pathlib import Path

import asyppo_jax

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "asyppo_jax"
_MADE = "<!-- Made by `python -m experiments.make_docs`; change the code and run that again. -->"


def main() -> None:
    for name, text in pages().items():
        (ROOT / "docs" / name).write_text(text)
        print(f"docs/{name}")


def pages() -> dict[str, str]:
    """The text of each page by its name in docs/."""
    return {"configs.md": _configs_page(), "api.md": _api_page()}


def _configs_page() -> str:
    source = (PACKAGE / "config/settings.py").read_text()
    comments = _comments(source)
    classes = {node.name: node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)}
    blocks = [
        _MADE,
        "# Every setting",
        "A file in `configs/` starts from `default_config()` and changes what it needs; the\n"
        "command line changes more: `--config.section.field=value`. A name that is not here is an\n"
        "error. [P]: the paper states it; [S]: a summary of it does; [R]: ROLL's default; [D]: the"
        "\npaper is silent and this is our choice. Settings marked *may change* may differ when a\n"
        "run is resumed.",
    ]
    run = classes.pop("Config")
    plain, sections = [], []
    for field in _fields(run):
        kind = ast.unparse(field.annotation)
        (sections if kind in classes else plain).append((field, kind))
    blocks += ["## config", _table([field for field, _ in plain], comments)]
    by_kind: dict[str, list[str]] = {}
    for field, kind in sections:
        by_kind.setdefault(kind, []).append(f"config.{_name(field)}")
    for kind, names in by_kind.items():
        blocks.append("## " + ", ".join(names))
        if doc := ast.get_docstring(classes[kind]):
            blocks.append(doc)
        blocks.append(_table(_with_inherited(classes[kind], classes), comments))
    blocks.append(
        "Where two sections share a table they share its defaults, but for the critics' learning\n"
        "rate: `config.critic_optimizer.learning_rate` = 1e-5 [R]."
    )
    return "\n\n".join(blocks) + "\n"


def _fields(cls: ast.ClassDef) -> list[ast.AnnAssign]:
    return [node for node in cls.body if isinstance(node, ast.AnnAssign)]


def _with_inherited(cls: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> list[ast.AnnAssign]:
    """A class's fields and those of its bases that it does not override."""
    fields = {}
    for base in cls.bases:
        fields |= {_name(f): f for f in _with_inherited(classes[ast.unparse(base)], classes)}
    return list((fields | {_name(field): field for field in _fields(cls)}).values())


def _name(field: ast.AnnAssign) -> str:
    return ast.unparse(field.target)


def _table(fields: list[ast.AnnAssign], comments: dict[int, tuple[str, bool]]) -> str:
    lines = ["| field | type | default | |", "|---|---|---|---|"]
    for field in fields:
        kind, comment = ast.unparse(field.annotation), _comment_of(field, comments)
        if kind.startswith("MayChange["):
            kind = kind.removeprefix("MayChange[").removesuffix("]")
            comment = f"{comment} *May change.*".strip()
        cells = [
            f"`{_name(field)}`",
            f"`{kind}`",
            f"`{ast.unparse(field.value)}`" if field.value else "",
            comment,
        ]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def _comment_of(field: ast.AnnAssign, comments: dict[int, tuple[str, bool]]) -> str:
    """The comment lines directly above a field, then those on the field's own lines."""
    end = field.end_lineno or field.lineno
    same_line = [comments[i][0] for i in range(field.lineno, end + 1) if i in comments]
    above, line = [], field.lineno - 1
    while line in comments and comments[line][1]:
        above.insert(0, comments[line][0])
        line -= 1
    return " ".join(above + same_line)


def _comments(source: str) -> dict[int, tuple[str, bool]]:
    """Line number -> (comment, whether the line has nothing else)."""
    comments = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            is_whole_line = token.line.lstrip().startswith("#")
            comments[token.start[0]] = token.string.lstrip("# "), is_whole_line
    return comments


def _api_page() -> str:
    blocks = [
        _MADE,
        "# The exported names",
        "What `from asyppo_jax import NAME` gives, by the module that defines it. `train` is in\n"
        "`asyppo_jax.train`. Shapes are in the signatures. Letters: B sequences, N prompts, G\n"
        "responses per prompt, K critics, P prompt and C completion positions, T = P + C,\n"
        "V vocabulary, D embed.\n"
        "Settings are in [configs.md](configs.md); everything else is documented in its module.",
    ]
    for module, names in sorted(asyppo_jax._MODULES.items()):
        path = PACKAGE / (module.replace(".", "/") + ".py")
        entries = []
        for name in sorted(names.split()):
            entries.append(_entry(_definition(name, path)))
        blocks += [f"## asyppo_jax.{module}", *entries]
    return "\n\n".join(blocks) + "\n"


def _definition(name: str, path: Path) -> ast.FunctionDef | ast.ClassDef:
    """The definition of a name in a module, or in the modules of a package."""
    paths = [path] if path.is_file() else sorted(path.with_suffix("").glob("*.py"))
    for file in paths:
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
                return node
    raise LookupError(f"{path} does not define {name}")


def _entry(node: ast.FunctionDef | ast.ClassDef) -> str:
    doc = ast.get_docstring(node) or ""
    if isinstance(node, ast.ClassDef):
        head = f"class {node.name}({', '.join(map(ast.unparse, node.bases))})".replace("()", "")
        fields = [f"    {ast.unparse(field)}" for field in _fields(node)]
        return "\n".join(["```python", head, *fields, "```", doc]).rstrip()
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    head = f"{node.name}({ast.unparse(node.args)}){result}"
    return "\n".join(["```python", head, "```", doc]).rstrip()


if __name__ == "__main__":
    main()
