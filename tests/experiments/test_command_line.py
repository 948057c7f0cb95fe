"""What the mains share."""

import pytest

from asyppo_jax.config import ConfigError
from experiments.command_line import read_config_file


def test_a_config_file_is_read_with_the_changes_of_another():
    plain = read_config_file("configs/tiny_test.py")
    changed = read_config_file("configs/tiny_test.py", {"sampling.temperature": 0.5, "seed": 7})
    assert (changed.sampling.temperature, changed.seed) == (0.5, 7)
    assert changed.algorithm == plain.algorithm


def test_a_file_that_is_not_there_is_one_sentence():
    with pytest.raises(ConfigError, match=r"nowhere\.py is no config file"):
        read_config_file("configs/nowhere.py")
