"""The page of saved rollouts is self-contained, and no answer's text can inject code into it."""

import html.parser
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from asyppo_jax.runs.rollout_files import RolloutFileError, write_rollout_file
from experiments.inspect.page import RunAnswers, read_rollouts, render
from tests.tiny import make_saved_answer

EVIL = "</script><script>alert(1)</script><!-- <b>&amp;"
PLACEHOLDERS = ("__ROLLOUTS__", "__SCRIPT__", "__STYLE__")


def page_of(*answers) -> str:
    return render([RunAnswers("a run", "2 critics", list(answers))])


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


def test_the_page_has_every_answer_and_names_its_run():
    first = [make_saved_answer(group=i, problem=f"problem {i}") for i in range(5)]
    page = render([RunAnswers("one", "seed 0", first), RunAnswers("two", "", first[:1])])
    data = json.loads(Elements(page).scripts[0])
    assert data["runs"] == [{"name": "one", "settings": "seed 0"}, {"name": "two", "settings": ""}]
    assert [(a["run"], a["problem"]) for a in data["answers"]] == [
        *((0, f"problem {i}") for i in range(5)),
        (1, "problem 0"),
    ]
    answer = data["answers"][0]
    assert answer["token_texts"] == ["a", "b", "<end>"] and answer["value_std"][0] == 0.125


def test_the_page_loads_no_other_file():
    page = page_of(make_saved_answer())
    assert "http:" not in page and "https:" not in page
    assert not any(placeholder in page for placeholder in PLACEHOLDERS)
    attributes = [name for _, attrs in Elements(page).elements for name in attrs]
    assert not {"src", "href", "srcset"} & set(attributes)
    assert "@import" not in page and not re.search(r"url\(|fetch\(|import\(", page)


def test_html_in_an_answer_stays_text():
    evil = make_saved_answer(problem=EVIL, token_texts=[EVIL, "\u2028", "__ROLLOUTS__"])
    plain = Elements(page_of(make_saved_answer()))
    page = Elements(render([RunAnswers(EVIL, "__SCRIPT__", [evil])]))
    assert page.elements == plain.elements  # it adds no element
    data = json.loads(page.scripts[0])
    assert data["runs"] == [{"name": EVIL, "settings": "__SCRIPT__"}]
    (answer,) = data["answers"]
    assert (answer["problem"], answer["token_texts"][0]) == (EVIL, EVIL)
    assert answer["token_texts"][2] == "__ROLLOUTS__"
    # The script sets texts as text; only the value line, made of numbers, is inserted as HTML.
    assert page.scripts[1] == plain.scripts[1] and "innerHTML" not in page.scripts[1]
    assert page.scripts[1].count("insertAdjacentHTML") == 1


def test_folders_and_files_are_read_in_order(tmp_path):
    def steps(*places):
        (run,) = read_rollouts([str(place) for place in places])
        return [answer.step for answer in run.answers]

    rollouts = tmp_path / "run" / "rollouts"
    for step in (10, 2):
        write_rollout_file(rollouts / f"step_{step:08}.jsonl", [make_saved_answer(step=step)])
    assert steps(rollouts) == steps(tmp_path / "run") == [2, 10]
    assert steps(rollouts / "step_00000010.jsonl") == [10]
    assert steps(rollouts / "step_00000010.jsonl", rollouts) == [10, 2]  # each once
    (tmp_path / "empty").mkdir()
    with pytest.raises(RolloutFileError, match=r"has no step_\*\.jsonl or heldout_\*\.jsonl"):
        read_rollouts([str(tmp_path / "empty")])


def test_a_run_is_named_by_its_directory_and_described_by_its_settings(tmp_path):
    settings = {
        "seed": 3,
        "actor": {"path": "some/model"},
        "algorithm": {"num_critics": 1, "advantages": "gae"},
    }
    for name in ("a/run", "b/run"):
        write_rollout_file(tmp_path / name / "rollouts" / "step_1.jsonl", [make_saved_answer()])
    (tmp_path / "a" / "run" / "config.json").write_text(json.dumps(settings))
    (alone,) = read_rollouts([str(tmp_path / "a" / "run")])
    assert (alone.name, alone.settings) == ("run", "1 critic · GAE · seed 3 · some/model")
    first, second = read_rollouts([str(tmp_path / "a" / "run"), str(tmp_path / "b" / "run")])
    assert (first.name, second.name, second.settings) == ("a/run", "b/run", "")
    (tmp_path / "a" / "run" / "config.json").write_text("{")
    with pytest.raises(RolloutFileError, match=r"config\.json is not JSON"):
        read_rollouts([str(tmp_path / "a" / "run")])


def test_the_command_writes_the_page_and_names_a_file_that_it_cannot_read(tmp_path):
    def inspect(*arguments: str):
        command = [sys.executable, "-m", "experiments.inspect", *arguments]
        root = Path(__file__).parents[2]
        return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300)

    file = tmp_path / "step_00000003.jsonl"
    write_rollout_file(file, [make_saved_answer()])
    done = inspect(f"--rollouts={file}")
    assert done.returncode == 0 and "answers: 1" in done.stdout, done.stderr
    page = (tmp_path / "step_00000003.html").read_text()
    assert page == render([RunAnswers(tmp_path.name, "", [make_saved_answer()])])
    file.write_text("no JSON\n")
    failed = inspect(f"--rollouts={file}")
    assert failed.returncode == 1 and failed.stderr.count("\n") == 1
    assert failed.stderr.startswith("error: ") and "line 1, is not JSON" in failed.stderr
