"""What the mains share."""

import pytest
from absl import flags
from ml_collections import config_flags

from asyppo_jax.config import ConfigError
from experiments.command_line import read_config, read_config_file


def test_a_config_file_is_read_with_the_changes_of_another():
    plain = read_config_file("configs/tiny_test.py")
    changed = read_config_file("configs/tiny_test.py", {"sampling.temperature": 0.5, "seed": 7})
    assert (changed.sampling.temperature, changed.seed) == (0.5, 7)
    assert changed.algorithm == plain.algorithm


def test_a_file_that_is_not_there_is_one_sentence():
    with pytest.raises(ConfigError, match=r"nowhere\.py is no config file"):
        read_config_file("configs/nowhere.py")


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # ml_collections' own
def test_the_flag_of_a_file_that_is_missing_is_one_sentence_too():
    values = flags.FlagValues()
    flag = config_flags.DEFINE_config_file("config", None, flag_values=values)
    values(["program", "--config=configs/nowhere.py"])
    with pytest.raises(ConfigError, match=r"the file of --config cannot be loaded: .*nowhere"):
        read_config(flag.value)
    with pytest.raises(ConfigError, match=r"--config=configs/NAME\.py is missing"):
        read_config(None)
