"""The page of saved rollouts is self-contained, and no answer's text can inject code into it."""

import html.parser
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from asyppo_jax.runs.rollout_files import RolloutFileError, write_rollout_file
from experiments.inspect.page import read_rollouts, render
from tests.tiny import make_saved_answer

EVIL = "</script><script>alert(1)</script><!-- <b>&amp;"


class Elements(html.parser.HTMLParser):
    """The elements of a page with their attributes, and the contents of its scripts."""

    def __init__(self, page: str):
        super().__init__()
        self.elements, self.scripts = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self.elements[-1:] and self.cdata_elem == "script":
            self.scripts[-1] += data


def test_the_page_has_every_answer():
    answers = [make_saved_answer(group=i, problem=f"problem {i}") for i in range(5)]
    elements = Elements(render(answers))
    data = json.loads(elements.scripts[0])
    assert [answer["problem"] for answer in data] == [f"problem {i}" for i in range(5)]
    assert data[0]["token_texts"] == ["a", "b", "<end>"] and data[0]["value_std"][0] == 0.125


def test_the_page_loads_no_other_file():
    page = render([make_saved_answer()])
    assert "http:" not in page and "https:" not in page
    attributes = [name for _, attrs in Elements(page).elements for name in attrs]
    assert not {"src", "href", "srcset"} & set(attributes)
    assert "@import" not in page and not re.search(r"url\(|fetch\(|import\(", page)


def test_html_in_an_answer_stays_text():
    evil = make_saved_answer(problem=EVIL, token_texts=[EVIL, "\u2028", "__ROLLOUTS__"])
    plain, page = Elements(render([make_saved_answer()])), Elements(render([evil]))
    assert page.elements == plain.elements  # it adds no element
    data = json.loads(page.scripts[0])
    assert (data[0]["problem"], data[0]["token_texts"][0]) == (EVIL, EVIL)
    assert data[0]["token_texts"][2] == "__ROLLOUTS__"
    # The script sets texts as text; only the value line, made of numbers, is inserted as HTML.
    assert page.scripts[1] == plain.scripts[1] and "innerHTML =" not in page.scripts[1]


def test_folders_and_files_are_read_in_order(tmp_path):
    for step in (10, 2):
        write_rollout_file(tmp_path / f"step_{step:08}.jsonl", [make_saved_answer(step=step)])
    assert [a.step for a in read_rollouts([str(tmp_path)])] == [2, 10]
    assert [a.step for a in read_rollouts([str(tmp_path / "step_00000010.jsonl")])] == [10]
    (tmp_path / "empty").mkdir()
    with pytest.raises(RolloutFileError, match=r"has no step_\*\.jsonl"):
        read_rollouts([str(tmp_path / "empty")])


def test_the_command_writes_the_page_and_names_a_file_that_it_cannot_read(tmp_path):
    def inspect(*arguments: str):
        command = [sys.executable, "-m", "experiments.inspect", *arguments]
        root = Path(__file__).parents[2]
        return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300)

    file = tmp_path / "step_00000003.jsonl"
    write_rollout_file(file, [make_saved_answer()])
    done = inspect(f"--rollouts={file}")
    assert done.returncode == 0 and "answers: 1" in done.stdout, done.stderr
    assert (tmp_path / "step_00000003.html").read_text() == render([make_saved_answer()])
    file.write_text("no JSON\n")
    failed = inspect(f"--rollouts={file}")
    assert failed.returncode == 1 and failed.stderr.count("\n") == 1
    assert failed.stderr.startswith("error: ") and "line 1, is not JSON" in failed.stderr
