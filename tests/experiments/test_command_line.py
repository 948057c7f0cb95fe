"""Config files of the command lines, and their one-line errors."""

from pathlib import Path

import pytest
from absl import flags
from ml_collections import config_flags

from asyppo_jax.config import ConfigError
from experiments.command_line import parse_flags, read_config, read_config_file


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


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # ml_collections' own
def test_a_missing_file_in_the_config_flag_gives_a_one_line_error():
    values = flags.FlagValues()
    flag = config_flags.DEFINE_config_file("config", None, flag_values=values)
    values(["program", "--config=configs/nowhere.py"])
    with pytest.raises(ConfigError, match=r"the file of --config cannot be loaded: .*nowhere"):
        read_config(flag.value)
    with pytest.raises(ConfigError, match=r"--config=configs/NAME\.py is missing"):
        read_config(None)
