"""The rules of this repository: each has a checker, a test, and a proof that the test can fail.

A checker takes sources, as {path relative to the repository: text}, and returns one sentence per
violation.
"""

import ast
import re
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "asyppo_jax"
# An entry of the package imports only entries of lower levels, never one of its own level.
LEVELS = (
    ("config", "types", "ops"),
    ("runtime",),
    ("models", "tasks"),
    ("sampling", "algorithm"),
    ("runs", "evaluation", "planning"),
    ("loop",),
    ("train", "rewards"),
)
MAX_FILE_LINES = 350
MAX_FUNCTION_LINES = 60
# At the top; a folder of the package may have such a name.
UNTRACKED = {"runs", "build", "dist", "site"}
# Written so that none of them matches its own spelling here.
FORBIDDEN = {
    r"\b(extra[-_])?index[-_]url\b": "a package registry's address",
    r"(pypi|pythonhosted|npmjs|artifactory)\.[a-z]": "a package registry's address",
    r"(?<![\w.~-])/(work|root|home|Users)/[\w.-]": "a path of one machine",
    r"\b(T[O]DO|F[I]XME|X[X]X|H[A]CK)\b": "unfinished work",
}
IMPORT_NAMES = {"absl": "absl-py", "orbax": "orbax-checkpoint"}  # where the two names differ

Sources = dict[str, str]


def read_sources(*suffixes: str) -> Sources:
    """All files of the repository with these suffixes, except those that git ignores."""
    sources = {}
    for path in sorted(ROOT.rglob("*")):
        parts = path.relative_to(ROOT).parts
        hidden = [p for p in parts[:-1] if p.startswith(".") and p != ".ci"]
        ignored = parts[0] in UNTRACKED or {"node_modules", "__pycache__"} & set(parts)
        ignored = ignored or any(part.endswith(".egg-info") for part in parts)
        if path.is_file() and path.suffix in suffixes and not hidden and not ignored:
            # The letters of a notebook's pictures may spell anything.
            text = re.sub(r'"image/png": "[^"]*"', '""', path.read_text())
            sources[str(path.relative_to(ROOT))] = text
    return sources


PYTHON = read_sources(".py")


def module_name(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imports_of(path: str, text: str) -> Iterator[tuple[str, str]]:
    """(module, name) of each import in a file; name is "" for a plain `import module`."""
    package = module_name(path).split(".")
    if not path.endswith("__init__.py"):
        package = package[:-1]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *filter(None, [node.module])])
            yield from ((module, alias.name) for alias in node.names)


def module_graph(sources: Sources) -> dict[str, set[str]]:
    """The modules of the package, and the modules of the package that each of them imports."""
    paths = {module_name(p): p for p in sources if p.startswith(f"{PACKAGE}/")}
    graph = {}
    for module, path in paths.items():
        found = imports_of(path, sources[path])
        targets = {f"{m}.{n}" if f"{m}.{n}" in paths else m for m, n in found}
        graph[module] = {t for t in targets if t == PACKAGE or t.startswith(f"{PACKAGE}.")}
    return graph


def entry_of(module: str) -> str:
    """The entry at the top of the package that a module is, or belongs to."""
    return module.split(".")[1] if module != PACKAGE else PACKAGE


def level_of(module: str) -> int | None:
    if module == PACKAGE:  # the public names, gathered from all levels
        return len(LEVELS)
    return next((i for i, names in enumerate(LEVELS) if entry_of(module) in names), None)


def check_levels(sources: Sources) -> list[str]:
    problems = []
    for module, targets in module_graph(sources).items():
        level = level_of(module)
        if level is None:
            problems.append(f"{module} has no level; give it one in LEVELS")
            continue
        for target in sorted(targets):
            below = level_of(target)
            if below is not None and below >= level and entry_of(target) != entry_of(module):
                problems.append(f"{module} (level {level}) imports {target} (level {below})")
    return problems


def check_cycles(sources: Sources) -> list[str]:
    graph = module_graph(sources)
    finished: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> list[str]:
        if module in trail:
            return [" -> ".join([*trail[trail.index(module) :], module])]
        if module in finished:
            return []
        cycles = [c for t in sorted(graph.get(module, ())) for c in visit(t, (*trail, module))]
        finished.add(module)
        return cycles

    return [f"imports in a circle: {c}" for module in graph for c in visit(module, ())]


def check_linen(sources: Sources) -> list[str]:
    problems = []
    for path, text in sources.items():
        if path.startswith(("tests/", f"{PACKAGE}/models/")):
            continue
        names = {f"{module}.{name}" for module, name in imports_of(path, text)}
        names |= {ast.unparse(n) for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Attribute)}
        if any(name.startswith("flax.linen") for name in names):
            problems.append(f"{path} uses flax.linen, which belongs to {PACKAGE}/models")
    return problems


def check_dependencies(sources: Sources, declared: set[str]) -> list[str]:
    """`declared` holds what pyproject.toml asks for, in small letters with hyphens."""
    problems = []
    own = {PACKAGE, "configs", "experiments", "__future__"} | sys.stdlib_module_names
    for path, text in sources.items():
        if "/peer_programs/" in path:  # run in environments of their own
            continue
        if path.startswith((f"{PACKAGE}/", "experiments/", "configs/")):
            imported = {module.split(".")[0] for module, _ in imports_of(path, text)} - own
            for name in sorted(imported):
                if IMPORT_NAMES.get(name, name).lower().replace("_", "-") not in declared:
                    problems.append(f"{path} imports {name}, which pyproject.toml does not ask for")
    return problems


def check_file_lengths(sources: Sources) -> list[str]:
    lengths = {path: len(text.splitlines()) for path, text in sources.items()}
    return [f"{p} has {n} lines; split it" for p, n in lengths.items() if n > MAX_FILE_LINES]


def functions_of(text: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]) -> int:
    """The lines of a function but for blank ones, comments and docstrings (nested ones too)."""
    numbers = set(range(function.lineno, (function.end_lineno or function.lineno) + 1))
    for node in ast.walk(function):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            first = node.body[0]
            if ast.get_docstring(node) is not None:
                numbers -= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    texts = (lines[number - 1].strip() for number in numbers)
    return sum(bool(line) and not line.startswith("#") for line in texts)


def check_function_lengths(sources: Sources) -> list[str]:
    problems = []
    for path, text in sources.items():
        for function in functions_of(text):
            length = code_lines(function, text.splitlines())
            if length > MAX_FUNCTION_LINES:
                problems.append(f"{path}: {function.name} has {length} lines of code; split it")
    return problems


def check_docstrings(sources: Sources) -> list[str]:
    problems = []
    for path, text in sources.items():
        if not path.startswith(f"{PACKAGE}/"):
            continue
        for node in ast.parse(text).body:
            public = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            if public and not node.name.startswith("_") and not ast.get_docstring(node):
                problems.append(f"{path}: {node.name} is public and has no docstring")
    return problems


def check_mirror(sources: Sources) -> list[str]:
    """A module without functions (types.py) has nothing to test."""
    stems = {Path(p).stem for p in sources if p.startswith("tests/")}
    problems = []
    for path, text in sources.items():
        name = Path(path).stem.removeprefix("_")
        if path.startswith(f"{PACKAGE}/") and name != "_init__" and any(functions_of(text)):
            wanted = f"test_{name}"
            if not any(stem == wanted or stem.startswith(f"{wanted}_") for stem in stems):
                problems.append(f"{path} has no {wanted}.py in tests/")
    return problems


def check_text(sources: Sources) -> list[str]:
    problems = []
    for path, text in sources.items():
        for pattern, what in FORBIDDEN.items():
            for match in re.finditer(pattern, text):
                line = text.count("\n", 0, match.start()) + 1
                problems.append(f"{path}:{line} holds {what}: {match.group()}")
    return problems


def declared_packages() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    asked = [*project["dependencies"], *(name for extra in extras for name in extra)]
    return {re.split(r"[\[<>=!~; ]", name)[0].lower().replace("_", "-") for name in asked}


def report(problems: list[str]) -> None:
    assert not problems, "\n" + "\n".join(problems)


def test_imports_point_down():
    report(check_levels(PYTHON))


def test_imports_have_no_cycles():
    report(check_cycles(PYTHON))


def test_only_models_uses_linen():
    report(check_linen(PYTHON))


def test_every_imported_package_is_a_declared_dependency():
    report(check_dependencies(PYTHON, declared_packages()))


def test_files_are_short():
    report(check_file_lengths(PYTHON | read_sources(".html", ".css", ".js")))


def test_functions_are_short():
    report(check_function_lengths(PYTHON))


def test_public_functions_say_what_they_do():
    report(check_docstrings(PYTHON))


def test_every_module_has_a_test_file():
    report(check_mirror(PYTHON))


def test_no_text_names_a_registry_a_machine_or_unfinished_work():
    report(check_text(read_sources("", ".py", ".md", ".toml", ".txt", ".yaml", ".yml", ".ipynb")))


def test_no_link_is_tracked():
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout of git")
    tracked = subprocess.run(
        ["git", "ls-files", "--stage"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    links = [line for line in tracked.stdout.splitlines() if line.startswith("120000")]
    report(
        [f"{line.split()[-1]} is a link, which points at a path of one machine" for line in links]
    )


def long_function(lines: int) -> str:
    return "def f():\n    '''One.\n\n    Two.\n    '''\n\n    # three\n" + "    x = 1\n" * (
        lines - 1
    )


GOOD = {
    "asyppo_jax/__init__.py": "from asyppo_jax.train import run",
    "asyppo_jax/ops/masked.py": "import jax\ndef f():\n    'Says what.'",
    "asyppo_jax/models/layers.py": "import flax.linen as nn\nfrom asyppo_jax.ops import masked",
    "asyppo_jax/train.py": f"from .models import layers\n{long_function(60)}",
    "tests/test_masked.py": "def test_f(): ...",
    "tests/test_layers.py": "import flax.linen",
    "tests/test_train_resume.py": "\n" * 350,
}
BAD = [
    (check_levels, "asyppo_jax/ops/masked.py", "def f():\n    from asyppo_jax import train"),
    (check_levels, "asyppo_jax/ops/masked.py", "from ..models.layers import Block"),
    (check_levels, "asyppo_jax/models/layers.py", "from asyppo_jax import run"),
    (check_levels, "asyppo_jax/helpers.py", ""),
    (check_cycles, "asyppo_jax/ops/masked.py", "from asyppo_jax.models import layers"),
    (check_cycles, "asyppo_jax/ops/masked.py", "import asyppo_jax.ops.masked"),
    (check_linen, "asyppo_jax/train.py", "from flax import linen"),
    (check_linen, "experiments/train.py", "def f():\n    from flax.linen import Dense"),
    (check_linen, "asyppo_jax/train.py", "import flax\nflax.linen.unbox({})"),
    (check_file_lengths, "configs/long.py", "\n" * 351),
    (check_function_lengths, "tests/test_masked.py", long_function(61)),
    (
        check_function_lengths,
        "tests/test_masked.py",
        "class A:\n" + textwrap.indent(long_function(61), " "),
    ),
    (check_docstrings, "asyppo_jax/ops/masked.py", "def f():\n    return 'no docstring'"),
    (check_mirror, "asyppo_jax/ops/losses.py", "def f():\n    'Untested.'"),
    (check_text, "README.md", "pip install --index" + "-url somewhere"),
    (check_text, "README.md", "https://pypi" + ".example/simple"),
    (check_text, "configs/a.py", "path = '/ro" + "ot/model'"),
    (check_text, "configs/a.py", "# TO" + "DO: later"),
]


@pytest.mark.parametrize(("check", "path", "text"), BAD)
def test_each_check_fails_on_a_bad_file_and_on_nothing_else(check, path, text):
    assert check(GOOD) == []
    assert len(check({**GOOD, path: text})) == 1


def test_a_package_that_is_not_declared_is_named():
    sources = {"asyppo_jax/ops/masked.py": "import os, jax\nfrom yaml.nodes import Node"}
    assert check_dependencies(sources, {"jax", "pyyaml"}) == [
        "asyppo_jax/ops/masked.py imports yaml, which pyproject.toml does not ask for"
    ]
    assert check_dependencies(sources, {"jax", "yaml"}) == []


def test_the_checks_look_at_this_repository():
    assert {"asyppo_jax/types.py", "tests/test_architecture.py"} <= PYTHON.keys()
    assert "asyppo_jax.types" in module_graph(PYTHON)["asyppo_jax.algorithm.train_step"]
    assert {"jax", "ruff"} <= declared_packages()
