"""The command `asyppo`: its commands, its configs by name, and what it proposes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import main

ROOT = Path(__file__).parents[2]


def run(*arguments, cwd=ROOT):
    """The command as the console script starts it."""
    code = "import sys; sys.argv[0] = 'asyppo'; from experiments.main import main; main()"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def test_it_lists_its_commands_and_refuses_others():
    listed = run("--help")
    assert listed.returncode == 0
    assert all(f"  {name} " in listed.stdout for name in main.COMMANDS)
    assert run("configs", "--help").stdout == run("configs", "NAME", "-h").stdout == listed.stdout
    wrong = run("trian")
    assert wrong.returncode == 1
    assert wrong.stderr == "error: there is no command 'trian'; did you mean asyppo train?\n"
    assert main._hint("zzz").startswith("choose one of train, evaluate")


def test_a_command_runs_beside_a_checkout_that_is_called_like_the_package(tmp_path):
    (tmp_path / "asyppo_jax" / "docs").mkdir(parents=True)
    (tmp_path / "mine.py").write_text("from asyppo_jax.config import default_config as get_config")
    code = (  # as an editable install: the package is found, but its directory is not in sys.path
        f"import sys; root = {str(ROOT)!r}; sys.path.append(root)\n"
        "from experiments.main import main; sys.path.remove(root); main()"
    )
    arguments = ["train", "--config=mine.py", "--config.bogus=1", "--workdir=run"]
    environment = {name: x for name, x in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-P", "-c", code, *arguments]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stderr == (
        "error: config.bogus is not a setting; docs/configs.md lists all settings\n"
    )


@pytest.mark.parametrize("name", main.COMMANDS)
def test_every_command_is_a_module(name):
    path = ROOT / main.COMMANDS[name][0].replace(".", "/")
    assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()


def test_configs_are_listed_with_what_they_are():
    lines = main.list_configs().splitlines()
    assert len(lines) == len(list((ROOT / "configs").glob("*.py"))) - 1  # paper.py is none
    assert all(len(line.split("  ", 1)[1].strip()) > 20 for line in lines)


def test_the_values_of_a_config_are_printed_with_those_that_it_changes():
    lines = run("configs", "qwen3_14b_grpo").stdout.splitlines()
    assert "config.num_steps = 200   # changed" in lines
    assert "config.mesh.model = 8   # changed" in lines
    assert "config.sampling.group_size = 32" in lines
    wrong = run("configs", "nothing")
    assert wrong.returncode == 1 and wrong.stderr.startswith("error: nothing is not a config file")


def test_a_name_of_a_config_becomes_its_path_from_any_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["--config=tiny_test", "--config=configs/tiny_test.py"]
    for named in main.with_config_paths(names):
        assert Path(named.partition("=")[2]).samefile(ROOT / "configs/tiny_test.py")
    others = ["--config=nothing", "--config=configs/nothing.py", "--config=mine/tiny_test.py"]
    assert main.with_config_paths(others) == others
    Path("configs").mkdir()
    for file in ("tiny_test", "configs/tiny_test.py"):
        Path(file).touch()  # a file of the user's own comes first
    assert main.with_config_paths(names) == names


def test_a_wrong_setting_is_refused_from_another_directory(tmp_path):
    done = run("train", "--config=quickstart", "--workdir=x", "--config.sed=1", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "error: config.sed is not a setting; did you mean config.seed?"
    )


def test_the_quickstarts_model_is_found_from_another_directory(tmp_path):
    code = "from configs.quickstart import get_config; print(get_config().actor.path)"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    here, elsewhere = (
        subprocess.run(
            [sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True
        ).stdout.strip()
        for cwd in (ROOT, tmp_path)
    )
    assert here == "experiments/quickstart/model" and Path(elsewhere).is_dir()


def test_the_completion_script_is_valid_and_knows_commands_and_configs():
    script = run("completion").stdout
    checked = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True)
    assert checked.returncode == 0, checked.stderr
    ask = (
        f"{script}\nCOMP_WORDS=(asyppo train --config=quickstart_g); COMP_CWORD=2\n"
        'COMP_LINE="asyppo train --config=quickstart_g"; _asyppo; echo "${COMPREPLY[@]}"\n'
        'COMP_WORDS=(asyppo train --config =); COMP_CWORD=3; COMP_LINE="asyppo train --config="\n'
        '_asyppo; echo "${COMPREPLY[@]}" | tr " " "\\n" | grep -x quickstart\n'
        'COMP_WORDS=(asyppo ev); COMP_CWORD=1; COMP_LINE="asyppo ev"; _asyppo\n'
        'echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash"], input=ask, text=True, capture_output=True)
    assert done.stdout.split() == ["quickstart_grpo", "quickstart", "evaluate"]


def test_a_program_names_the_interpreter_that_runs_it(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "executable", str(ROOT / ".venv/bin/python"))
    assert main.command_line("evaluate") == ".venv/bin/python -m experiments.evaluate"
    monkeypatch.setattr(main, "_started_as_asyppo", True)
    assert main.command_line("evaluate") == "asyppo evaluate"
