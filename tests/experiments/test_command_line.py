"""Config files of the command lines, and their one-line errors."""

import pytest
from absl import flags
from ml_collections import config_flags

from asyppo_jax.config import ConfigError
from experiments.command_line import read_config, read_config_file


def test_a_config_file_is_read_with_changes():
    plain = read_config_file("configs/tiny_test.py")
    changed = read_config_file("configs/tiny_test.py", {"sampling.temperature": 0.5, "seed": 7})
    assert (changed.sampling.temperature, changed.seed) == (0.5, 7)
    assert changed.algorithm == plain.algorithm


def test_a_missing_config_file_gives_a_one_line_error():
    with pytest.raises(ConfigError, match=r"nowhere\.py is not a config file"):
        read_config_file("configs/nowhere.py")


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # ml_collections' own
def test_a_missing_file_in_the_config_flag_gives_a_one_line_error():
    values = flags.FlagValues()
    flag = config_flags.DEFINE_config_file("config", None, flag_values=values)
    values(["program", "--config=configs/nowhere.py"])
    with pytest.raises(ConfigError, match=r"the file of --config cannot be loaded: .*nowhere"):
        read_config(flag.value)
    with pytest.raises(ConfigError, match=r"--config=configs/NAME\.py is missing"):
        read_config(None)
