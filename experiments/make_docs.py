"""Generates pages of docs/ from the code: `python -m experiments.make_docs`.

docs/configs.md lists every setting, from the dataclasses and comments of `config/`.
docs/api.md lists the names that `asyppo_jax` exports, by purpose, with signatures and docstrings.
docs/commands.md lists every command's flags, as the program prints them. A test checks that all are
up to date. The source files are parsed; only the lists of names and the table of ranges are
imported.
"""

import ast
import io
import re
import textwrap
import tokenize
from pathlib import Path

import asyppo_jax
from asyppo_jax.config.ranges import RANGES
from experiments.commands_page import MADE, commands_page

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "asyppo_jax"
# Purpose -> the modules whose exported names serve it, in the order of the page.
PURPOSES = {
    "Losses and advantages": "ops.returns ops.ensemble ops.losses ops.logits ops.aggregation "
    "ops.masked ops.baselines algorithm.experience algorithm.batching.layout "
    "algorithm.batching.rows",
    "Training": "train types",
    "Load and generate": "runs.load sampling.loaded sampling.sampler runs.checkpoint",
    "Evaluate": "evaluation.benchmark evaluation.statistics evaluation.true_values "
    "evaluation.value_errors tasks.benchmarks",
    "Data and rewards": "tasks.records tasks.prompts tasks.tokenizers tasks.rewards "
    "tasks.answers.extract",
    "What a run wrote": "runs.metrics runs.rollout_files",
    "Settings": "config",
    "Planning": "planning.plan",
}
# Names that users import from their modules.
_ALSO = {
    "train": "train",
    "tasks.rewards": "RewardPool exact math",
    "tasks.answers.extract": "last_boxed",
}
# What these take and return.
_TYPES = {
    "tasks.benchmarks": "Benchmark",
    "evaluation.statistics": "Interval",
    "sampling.draw": "DecodingOptions",
    "sampling.sampler": "Sampler Answers",
    "runs.rollout_files": "SavedAnswer",
    "tasks.prompts": "PromptReport",
    "models.actor_critic": "Networks",
}


def main() -> None:
    for name, make in PAGES.items():
        (ROOT / "docs" / name).write_text(make())
        print(f"docs/{name}")


def _configs_page() -> str:
    files = ("settings", "algorithm_settings", "value_settings")
    source = "".join((PACKAGE / f"config/{name}.py").read_text() for name in files)
    comments = _comments(source)
    classes = {node.name: node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)}
    blocks = [
        MADE,
        "# Every setting",
        "A file in `configs/` starts from `default_config()` and changes some settings. Flags of\n"
        "the command line change others: `--config.section.field=value`. An unknown name is an\n"
        "error. [P]: the paper states it; [S]: a summary of it does; [R]: ROLL's default; [D]: the"
        "\npaper is silent and this is our choice. Settings marked *may change* may differ when a\n"
        "run is resumed. A number outside of its allowed range is refused at the start; a square\n"
        "bracket includes the end of the range, a round one does not.",
    ]
    run = classes.pop("Config")
    plain, sections = [], []
    for field in _fields(run):
        kind = ast.unparse(field.annotation)
        (sections if kind in classes else plain).append((field, kind))
    blocks += ["## config", _table([field for field, _ in plain], comments, _ranges(run, classes))]
    by_kind: dict[str, list[str]] = {}
    for field, kind in sections:
        by_kind.setdefault(kind, []).append(f"config.{_name(field)}")
    for kind, names in by_kind.items():
        blocks.append("## " + ", ".join(names))
        if doc := ast.get_docstring(classes[kind]):
            blocks.append(doc)
        cls = classes[kind]
        blocks.append(_table(_with_inherited(cls, classes), comments, _ranges(cls, classes)))
    blocks.append(
        "Where two sections share a table they share its defaults, except the critics' learning\n"
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


def _ranges(cls: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> dict[str, str]:
    """What a class's fields and those of its bases may be, in words."""
    ranges = {}
    for base in cls.bases:
        ranges |= _ranges(classes[ast.unparse(base)], classes)
    return ranges | {name: str(allowed) for name, allowed in RANGES.get(cls.name, {}).items()}


def _name(field: ast.AnnAssign) -> str:
    return ast.unparse(field.target)


def _table(
    fields: list[ast.AnnAssign], comments: dict[int, tuple[str, bool]], ranges: dict[str, str]
) -> str:
    lines = ["| field | type | default | allowed | |", "|---|---|---|---|---|"]
    for field in fields:
        kind, comment = ast.unparse(field.annotation), _comment_of(field, comments)
        if kind.startswith("MayChange["):
            kind = kind.removeprefix("MayChange[").removesuffix("]")
            comment = f"{comment} *May change.*".strip()
        cells = [
            f"`{_name(field)}`",
            f"`{kind}`",
            f"`{ast.unparse(field.value)}`" if field.value else "",
            f"`{ranges[_name(field)]}`" if _name(field) in ranges else "",
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
    contents, sections = ["| purpose | names |", "|---|---|"], []
    for purpose, names in _names_by_purpose().items():
        links = " · ".join(f"[`{name}`](#{name.lower()})" for name in names)
        contents.append(f"| [{purpose}](#{purpose.lower().replace(' ', '-')}) | {links} |")
        sections.append(f"## {purpose}")
        sections += [_entry(name, module) for name, module in names.items()]
    blocks = [
        MADE,
        "# The Python reference",
        "`from asyppo_jax import NAME` gives each of these names, where no other import is shown.\n"
        "Shapes are in the signatures. Letters: B sequences, N prompts, G responses per prompt,\n"
        "K critics, P prompt and C completion positions, T = P + C, V vocabulary, D embed.\n"
        "[Settings](configs.md) have their own page; everything else is documented in its module.",
        "\n".join(contents),
    ]
    return "\n\n".join(blocks + sections) + "\n"


def _names_by_purpose() -> dict[str, dict[str, str]]:
    """Purpose -> {name: its module}; raises if an exported name has no purpose."""
    modules = asyppo_jax._MODULES | _ALSO
    if missing := modules.keys() - " ".join(PURPOSES.values()).split():
        raise LookupError(f"{sorted(missing)} are in no purpose; add them to PURPOSES")
    names = {
        purpose: {name: module for module in listed.split() for name in modules[module].split()}
        for purpose, listed in PURPOSES.items()
    }
    types = {name: module for module, listed in _TYPES.items() for name in listed.split()}
    return names | {"Types": types}


def _entry(name: str, module: str) -> str:
    path = PACKAGE / (module.replace(".", "/") + ".py")
    node, source = _definition(name, path)
    lines = [f"### {name}", ""]
    if module in _ALSO or name not in asyppo_jax.__all__:
        lines += [f"`from asyppo_jax.{module} import {name}`", ""]
    lines += ["```python", _signature(node, source), "```", "", _markdown(node)]
    for method in node.body if isinstance(node, ast.ClassDef) else ():
        if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
            lines += ["", f"#### {name}.{method.name}", ""]
            lines += ["```python", _signature(method, source), "```", "", _markdown(method)]
    return "\n".join(lines).rstrip()


def _definition(name: str, path: Path) -> tuple[ast.FunctionDef | ast.ClassDef, list[str]]:
    """The definition of a name in a module or in the modules of a package, and its file's lines."""
    paths = [path] if path.is_file() else sorted(path.with_suffix("").glob("*.py"))
    for file in paths:
        source = file.read_text()
        for node in ast.parse(source).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
                return node, source.splitlines()
    raise LookupError(f"{path} does not define {name}")


def _signature(node: ast.FunctionDef | ast.ClassDef, source: list[str]) -> str:
    """The definition as it is written: without its body, but with the fields of a class."""
    header = source[node.lineno - 1 : node.body[0].lineno - 1]
    lines = textwrap.dedent("\n".join(header)).strip().removesuffix(":").split("\n")
    if isinstance(node, ast.ClassDef) and (fields := _fields(node)):
        first = node.body[0]
        start = first.end_lineno if ast.get_docstring(node) else first.lineno - 1
        lines += [line for line in source[start : fields[-1].end_lineno] if line]
    return "\n".join(lines)


def _markdown(node: ast.FunctionDef | ast.ClassDef) -> str:
    """The docstring, with the entries of "Args:" and "Raises:" as lists."""
    blocks = []
    for block in (ast.get_docstring(node) or "").split("\n\n"):
        title, _, entries = block.partition("\n")
        if title in ("Args:", "Raises:"):
            entry = re.compile(r"^[\w*][\w*, ]*:", re.MULTILINE)
            block = f"{title}\n\n{entry.sub(_list_item, textwrap.dedent(entries))}"
        blocks.append(block)
    return "\n\n".join(blocks)


def _list_item(names: re.Match[str]) -> str:
    return "- " + re.sub(r"[\w*]+", r"`\g<0>`", names.group())


# A page's name in docs/, and what makes its text.
PAGES = {"configs.md": _configs_page, "api.md": _api_page, "commands.md": commands_page}

if __name__ == "__main__":
    main()
