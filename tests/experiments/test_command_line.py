"""Config files of the command lines, and their one-line errors."""

import errno
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from absl import flags
from ml_collections import config_flags

from asyppo_jax.config import ConfigError, RewardConfig
from experiments.command_line import (
    _print_exception,
    _without_closed_loops,
    parse_flags,
    read_config,
    read_config_file,
    read_flags,
    refuse_words,
    reward_of_run,
)
from experiments.train import define_flags, read_run


def test_a_config_file_is_read_with_changes():
    plain = read_config_file("configs/tiny_test.py")
    changed = read_config_file("configs/tiny_test.py", {"sampling.temperature": 0.5, "seed": 7})
    assert (changed.sampling.temperature, changed.seed) == (0.5, 7)
    assert changed.algorithm == plain.algorithm


def test_a_missing_config_file_gives_a_one_line_error():
    with pytest.raises(ConfigError, match=r"nowhere\.py is not a config file"):
        read_config_file("configs/nowhere.py")


def test_a_setting_of_an_earlier_version_in_a_file_gives_its_line_and_its_new_name(tmp_path):
    text = Path("configs/tiny_test.py").read_text().splitlines()
    at = next(i for i, line in enumerate(text) if "return config" in line)
    old = tmp_path / "old.py"
    old.write_text("\n".join([*text[:at], "    config.sampling.parts = 2", *text[at:]]))
    message = rf"old\.py, line {at + 1}: config\.sampling\.parts is now config\.sampling\.chunks"
    with pytest.raises(ConfigError, match=message):
        read_config_file(str(old))


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--config.mesh.gather=layer", "config.mesh.gather is now config.mesh.zero_stage"),
        ("--config.samplng.chunks=2", "did you mean config.sampling.chunks?"),
        ("--workdirr=x", "Unknown command line flag 'workdirr'"),
    ],
)
def test_a_flag_that_does_not_exist_gives_one_sentence(flag, message):
    with pytest.raises(SystemExit) as error:
        parse_flags(["program", flag])
    assert message in str(error.value) and "\n" not in str(error.value)


def _training_flags() -> flags.FlagValues:
    values = flags.FlagValues()
    define_flags(values)
    return values


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # ml_collections' own
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "mine.py of --config does not exist; `asyppo configs` lists those that exist"),
        ("def get_config(:", r"--config cannot be read: .*mine\.py, line 1"),
        ("import nowhere", "--config cannot be read: No module named 'nowhere'"),
        ("def get_config():\n    return sead", r"mine\.py, line 2: name 'sead' is not defined"),
        ("def get_config():\n    return 1 / 0", r"mine\.py, line 2: division by zero"),
        (
            "def get_config():\n    return int('x')",
            r"mine\.py, line 2: ValueError: inv",
        ),
        (
            "from configs.tiny_test import get_config as tiny\n"
            "def get_config():\n    tiny().algorithm['beta'] = 1",
            r"line 3: config\.algorithm\.beta is not a setting; here it is config\.\S+kl_coef$",
        ),
    ],
)
def test_a_config_file_with_a_mistake_gives_one_sentence(tmp_path, text, message):
    file = tmp_path / "mine.py"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        read_flags(["program", f"--config={file}"], _training_flags())
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_a_config_file_that_returns_something_else_is_refused(tmp_path):
    file, values = tmp_path / "mine.py", _training_flags()
    file.write_text("def get_config():\n    return {'seed': 1}\n")
    read_flags(["program", f"--config={file}"], values)
    with pytest.raises(ConfigError, match=r"returns a dict; return default_config\(\) after"):
        read_config(values.config)
    with pytest.raises(ConfigError, match=r"returns a dict; return default_config\(\) after"):
        read_config_file(str(file))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(:", r"is not a config file .*line 1"),
        ("1 / 0", "is not a config file with a get_config function: division by zero"),
        ("def get_config():\n    raise RuntimeError", r"mine\.py, line 2: RuntimeError"),
    ],
)
def test_another_config_file_with_a_mistake_gives_one_sentence(tmp_path, text, message):
    file = tmp_path / "mine.py"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        read_config_file(str(file))
    assert "\n" not in str(error.value)


def test_a_stray_word_is_refused():
    refuse_words(["program"])
    with pytest.raises(ConfigError, match="'best' is not a flag"):
        refuse_words(["program", "best"])


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--config.num_steps=abc", "--config.num_steps takes a whole number, not 'abc'; "),
        ("--config.algorithm.gamma=x: y", "--config.algorithm.gamma takes a number, not 'x: y'; "),
        ("--config.log.tensorboard=so", "--config.log.tensorboard takes true or false, not 'so'; "),
        ("--join_timeout=0", "flag --join_timeout=0: 0.0 is not number >= 1.0; "),
    ],
)
def test_a_flag_with_a_wrong_value_gives_one_sentence(flag, message, monkeypatch):
    argv = ["program", "--config=tiny_test", flag]
    monkeypatch.setattr(sys, "argv", argv)  # ml_collections looks for the settings there
    with pytest.raises(ConfigError) as error:
        read_flags(argv, _training_flags(), "program")
    assert str(error.value) == f"{message}program --help lists the flags"


def test_the_error_for_a_missing_config_file_names_the_nearest_one():
    with pytest.raises(ConfigError, match=r"did you mean --config=quickstart\?"):
        read_flags(["program", "--config=configs/quickstrt.py"], _training_flags())


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_an_argument_that_is_no_flag_is_refused():
    values = _training_flags()
    rest = read_flags(["program", "--config=configs/tiny_test.py", "config.seed=1"], values)
    with pytest.raises(ConfigError, match=r"'config\.seed=1' is not a flag; settings are flags"):
        read_run(rest, values)


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # ml_collections' own
def test_a_missing_file_in_the_config_flag_gives_a_one_line_error():
    values = flags.FlagValues()
    flag = config_flags.DEFINE_config_file("config", None, flag_values=values)
    values(["program", "--config=configs/nowhere.py"])
    with pytest.raises(ConfigError, match=r"the file of --config cannot be loaded: .*nowhere"):
        read_config(flag.value)
    with pytest.raises(ConfigError, match=r"--config=configs/NAME\.py is missing"):
        read_config(None)


@pytest.mark.skipif(importlib.util.find_spec("gcsfs") is not None, reason="gcsfs is installed")
@pytest.mark.parametrize(
    "command",
    [
        ("evaluate", "--checkpoint=gs://bucket/run", "--benchmark=held_out"),
        ("export", "--workdir=gs://bucket/run", "--output=nowhere"),
    ],
)
def test_a_bucket_without_its_package_gives_a_one_line_error(command):
    name, *flags_of = command
    done = subprocess.run(
        [sys.executable, "-m", f"experiments.{name}", *flags_of], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: a gs:// path cannot be read")
    assert "Traceback" not in done.stderr and "google-cloud-storage" in done.stderr


def test_a_grader_keeps_the_runs_weights_where_their_number_matches(capsys):
    weighted = RewardConfig(function="math,exact", weights=(0.7, 0.3))
    assert reward_of_run(weighted, None) == weighted
    two = reward_of_run(weighted, "mine:a,mine:b")
    assert (two.function, two.weights) == ("mine:a,mine:b", (0.7, 0.3))
    assert capsys.readouterr().err == "--grader=mine:a,mine:b: the run's weights (0.7, 0.3)\n"
    assert reward_of_run(weighted, "a:b,c:d,e:f").weights == ()
    assert capsys.readouterr().err == "--grader=a:b,c:d,e:f: equal weights\n"
    assert reward_of_run(weighted, "exact").weights == ()
    assert capsys.readouterr().err == ""


def test_a_reward_that_was_given_in_python_needs_a_grader_in_a_module():
    given = RewardConfig(function="__main__:right")
    with pytest.raises(ConfigError, match="that does not train when it is imported, and name it"):
        reward_of_run(given, None)
    assert reward_of_run(given, "mine:right").function == "mine:right"


def test_a_full_disk_is_one_line_and_other_errors_keep_their_traceback(capsys):
    for number in (errno.ENOSPC, errno.EDQUOT):
        error = OSError(number, os.strerror(number), "runs/x/answers.jsonl")
        _print_exception(OSError, error, None)
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: runs/x/answers.jsonl cannot be written: ")
    _print_exception(OSError, OSError(errno.ENOENT, "No such file", "x"), None)
    assert "FileNotFoundError" in capsys.readouterr().err


def test_only_calls_of_a_closed_loop_are_left_out(monkeypatch):
    shown = []
    monkeypatch.setattr(sys, "__unraisablehook__", shown.append)
    for text in ("Event loop is closed", "another"):
        _without_closed_loops(SimpleNamespace(exc_value=RuntimeError(text)))
    assert [str(x.exc_value) for x in shown] == ["another"]
