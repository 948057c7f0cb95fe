"""The page docs/commands.md: every command with all its flags, as the programs themselves say."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

from experiments.main import COMMANDS

ROOT = Path(__file__).parents[1]
MADE = "<!-- Made by `python -m experiments.make_docs`; change the code and run that again. -->"
_HEAD = """\
# Every command and its flags

`asyppo NAME` is `python -m experiments.MODULE`, and `asyppo NAME --help` prints its flags with
examples. Lists are separated by commas. Where a command takes `--config=FILE`, it also takes
[every setting](configs.md) as `--config.section.field=value`.
"""


def commands_page() -> str:
    """The page; starts each program once."""
    modules = [module for module, _ in COMMANDS.values()]
    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(_help, modules))
    parts = [MADE, "", _HEAD]
    for (name, (module, about)), answer in zip(COMMANDS.items(), answers, strict=True):
        parts += [f"## asyppo {name}\n", f"`python -m {module}`: {about}.\n", _table(answer)]
    return "\n".join(parts)


def _help(module: str) -> ElementTree.Element:
    """What absl prints of a program's flags."""
    # absl exits with 1 after its help.
    command = [sys.executable, "-m", module, "--helpxml"]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    printed = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    return ElementTree.fromstring(printed.stdout)


def _table(answer: ElementTree.Element) -> str:
    rows = ["| flag | default | |", "|---|---|---|"]
    for flag in _own_flags(answer):
        text = {child.tag: child.text or "" for child in flag}
        default = f"`{text['default']}`" if text.get("default") else ""
        meaning = re.sub(r"\s+", " ", text["meaning"]).replace("|", r"\|")
        rows.append(f"| `--{text['name']}` | {default} | {meaning} |")
    return "\n".join(rows) + "\n"


def _own_flags(answer: ElementTree.Element) -> Iterator[ElementTree.Element]:
    """The flags of the project's files, not those of the libraries that it imports."""
    for flag in answer.iter("flag"):
        if Path(flag.findtext("file", "")).is_relative_to(ROOT / "experiments"):
            yield flag
