"""The page of commands: every command, the flags of the project and none of its libraries."""

from experiments.commands_page import ROOT
from experiments.main import COMMANDS


def test_every_command_has_its_flags_with_defaults():
    page = (ROOT / "docs" / "commands.md").read_text()  # tests/test_docs.py: it is current
    for name in COMMANDS:
        section = page.split(f"## asyppo {name}\n")[1].split("\n## ")[0]
        assert section.count("| `--") >= 2, name
    assert "| `--temperature` | `0.99` | Sampling temperature; 0: greedy. |" in page
    assert r"<float32\|bfloat16>" in page  # a | would end the table's cell
    assert "logtostderr" not in page and "pdb" not in page  # absl's own
