"""Every command and Python snippet that a document shows: its flags exist, and it runs as shown.

The quick tests check names and flags. The slow one runs all of them in order in a clone, with
shorter settings. What needs a device, a hub, an account or hours is in `NOT_RUN`, with the reason.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from asyppo_jax.config.reading import setting_names
from experiments.main import COMMANDS
from experiments.train import closing_lines

ROOT = Path(__file__).parents[1]
PAGES = [
    *("README.md", "docs/your_own.md", "docs/checkpoints.md", "docs/from_trl_or_verl.md"),
    *("docs/research.md", "docs/pods.md", "CONTRIBUTING.md", "notebooks/README.md"),
    "docs/critics.md",
    *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("experiments/*/README.md")),
]
# Commands that no test runs: a part of the command, and why.
NOT_RUN = {
    "gcloud": "needs a Google Cloud account",
    "xpk": "needs a Google Cloud account",
    "docker": "needs Docker and a registry of images",
    "experiments.launch": "needs a slice; tests/experiments/test_launch.py checks the commands",
    "gs://": "needs a bucket",
    "experiments.plan": "needs the TPU compiler and minutes; tests marked tpu plan",
    "load_dataset": "downloads data sets",
    "--checkpoint=runs/RUN": "needs a run copied from a bucket",
    "--workdir=runs/RUN": "needs a run copied from a bucket",
    "real_model.fetch": "downloads weights",
    "smollm2_arithmetic": "needs downloaded weights",
    "experiments.critics": "takes half an hour; its parts are the library's functions",
    "experiments.torture --kills": "takes a quarter of an hour; test_torture_command.py, slow",
    "--process_id": "waits for other processes; tests/runtime/test_multi_host.py starts two",
    "--study=asyppo": "takes hours; tests/experiments/test_study_command.py runs one",
    "experiments.asyppo_study --study": "needs a study that ended; test_asyppo_study_tuning.py",
    "experiments.report --study=runs/asyppo_study": "needs a study that ended; reports of the "
    "shipped results run",
    "qwen2p5_0p5b_gsm8k": "needs downloaded weights and data",
    "studies/quickstart.py": "takes minutes; tests/experiments/test_study_command.py runs one",
    "--study=runs/study": "needs a study that ended; the same test reports one",
    "--study=quickstart": "takes minutes; the same test runs one",
    "--beside": "needs another library's environment",
    "PHASE": "a pattern: the flags of each row are in the table below it",
    "MODULE:FUNCTION": "a pattern",
    "--gguf": "needs a GGUF file; tests/models/formats/test_gguf.py converts one",
    "quickstart.make_model": "pretrains a model for an hour",
    "asyppo_study.make_models": "pretrains two models for an hour",
    "make_model --layers=12": "the same program as the smaller model",
    "math500": "needs the benchmark's file; tests/experiments/test_evaluate_command.py runs one",
    "make ": "make is what runs the tests, or needs a browser",
    "pip install": "the environment is there",
    "python -m venv": "makes an environment for another library",
    "from transformers": "needs PyTorch; tests/runs/test_export.py (torch) loads an export",
    "def opo_advantages": "is added to a file of the package; tests/algorithm has its like",
    "make_docs": "is run by tests/test_docs.py",
}
# Shorter settings, by a part of the command.
SHORTER = {
    "experiments.train": "--config.num_steps=2 --config.evaluation.every=0 "
    "--config.eval_data.num_records=16 --config.evaluation.batch_size=16 "
    "--config.log.rollouts_every=1",
    "experiments.evaluate": "--problems=2 --samples=1 --max_tokens=16 --batch_size=2",
    "experiments.torture": "--fuzz=60",
    "experiments.graders": "--graders=product",
    "experiments.value_truth": "--prompts=2 --group=2 --continuations=2",
    "benchmark sample": "--sequences=16 --completion=8 --repeats=1",
    "benchmark update": "--sequences=8 --completion=8 --repeats=1",
}
# What stands for a name of the user's, in the order in which the pages use them.
NAMES = {
    "configs/NAME.py": "configs/tiny_test.py",
    "[--config.section.field=value ...]": "",
    "=DIR/rollouts": "=runs/train/rollouts",
    "--workdir=DIR": "--workdir=runs/train",
    "--output=DIR": "--output=runs/export",
    "=RUN": "=runs/train",
    "=PATH": "=runs/train",
    "MODEL": "runs/model",
    "MINI": "runs/mini",
    "runs/quickstart": "runs/train",
}


class Example(NamedTuple):
    page: str
    text: str  # a command, or a Python snippet
    is_python: bool


def examples() -> list[Example]:
    found = []
    for page in PAGES:
        text = (ROOT / page).read_text()
        blocks = re.finditer(r"^```(\w*)\n(.*?)^```", text, re.M | re.S)
        snippets = [(m.start(), m[2], True) for m in blocks if m[1] == "python"]
        lines = re.finditer(r"^ {4,}(\S(?:.*\\\n)*.*)$", text, re.M)
        commands = [(m.start(), _join(m[1]), False) for m in lines]
        commands += [(m.start(), m[1], False) for m in re.finditer(r"`([^`\n]+)`", text)]
        ordered = sorted(snippets + [c for c in commands if _is_command(c[1])])
        found += [Example(page, text, is_python) for _, text, is_python in ordered]
    return found


def _join(lines: str) -> str:
    return re.sub(r"\s*\\\n\s*", " ", lines).partition("  #")[0].strip()


def _is_command(text: str) -> bool:
    programs = ("python -m ", "asyppo ", "make ", "pip ", "gcloud ", "docker ", "xpk ")
    without_variables = re.sub(r"^(?:[A-Z_]+=\S+ )+", "", text)
    return without_variables.startswith(programs) and not text.endswith("...")


def _reason_not_to_run(example: Example) -> str | None:
    return next((why for part, why in NOT_RUN.items() if part in example.text), None)


EXAMPLES = examples()
COMMAND_LINES = sorted({e.text for e in EXAMPLES if "-m experiments." in e.text})


def test_there_are_examples_of_both_kinds_and_every_exception_is_used():
    assert sum(e.is_python for e in EXAMPLES) >= 8 and len(COMMAND_LINES) >= 20
    for part in NOT_RUN:
        assert any(part in example.text for example in EXAMPLES), part


@pytest.fixture(scope="module")
def help_of():
    """The flags that a module of experiments lists."""
    texts: dict[str, str] = {}

    def flags(module: str) -> str:
        if module not in texts:
            command = [sys.executable, "-m", module, "--help"]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
            texts[module] = done.stdout
        return texts[module]

    return flags


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_every_flag_of_a_documented_command_exists(line, help_of):
    words = shlex.split(line.replace("[", "").replace("]", ""))
    module = words[words.index("-m") + 1]
    before, _, after = " ".join(words).partition(" -- ")
    for flag in re.findall(r"--([\w.]+)", before):
        if flag.startswith("config."):
            known = flag.removeprefix("config.") in setting_names()
            assert known or flag == "config.section.field", flag
        elif flag != "help":
            assert re.search(rf"--(\[no\])?{flag}\b", help_of(module)), (flag, module)
    for flag in re.findall(r"--config\.([\w.]+)", after):
        assert flag in setting_names()


def test_what_a_run_proposes_at_its_end_exists():
    lines = closing_lines("runs/x", 2)
    proposed = re.findall(r"-m (experiments[\w.]+)", lines)
    assert set(proposed) <= {module for module, _ in COMMANDS.values()} and len(proposed) == 2
    assert set(re.findall(r"--config\.([\w.]+)", lines)) <= set(setting_names())


@pytest.mark.slow
def test_every_example_runs_in_the_order_of_the_pages(tmp_path):
    clone = tmp_path / "clone"
    files = subprocess.check_output(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, text=True
    )
    names = [name for name in files.split("\0") if (ROOT / name).is_file()]
    for name in names:  # as a clone after a commit of what is here
        target = clone / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment["JAX_PLATFORMS"] = "cpu"
    (clone / "problems.jsonl").write_text('{"question": "1+2+3+4", "answer": "10"}\n' * 2)
    failures, seen = [], set()  # absl ends with status 1 after --help
    for example in EXAMPLES:
        if example.text in seen or _reason_not_to_run(example) is not None:
            continue
        seen.add(example.text)
        command = _python(clone, example) if example.is_python else _shorter(example.text)
        done = subprocess.run(
            command, shell=True, cwd=clone, env=environment, capture_output=True, text=True
        )
        if done.returncode and not (str(command).endswith("--help") and done.stdout):
            failures.append(f"{example.page}: {example.text}\n{command}\n{done.stderr[-1500:]}")
    assert len(seen) >= 12
    assert not failures, "\n\n".join(failures)


def _shorter(text: str) -> str:
    for name, value in NAMES.items():
        text = text.replace(name, value)
    if " --" not in text:  # a command that a sentence mentions
        return f"{text} --help"
    return " ".join([text, *(flags for part, flags in SHORTER.items() if part in text)])


def _python(clone: Path, example: Example) -> str:
    """The command that runs a snippet: a module if its first line names a file, else a script."""
    text = example.text
    for name, value in NAMES.items():
        text = text.replace(f'"{name}"', f'"{value}"')
    text = text.replace("num_steps = 12", "num_steps = 2")
    named = re.match(r"# (\w+\.py)\n", text)
    file = clone / (named[1] if named else "snippet.py")
    file.write_text(text)
    return f"python {file.name}"
