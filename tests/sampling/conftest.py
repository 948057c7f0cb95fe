"""A tiny model, its tokenizer and prompts, ready to be sampled from."""

import pytest

from tests.tiny import make_sampling_setting

PROBLEMS = ("1+1", "2+3", "4+4", "9+9", "5+1")


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    return make_sampling_setting(tmp_path_factory.mktemp("model"), PROBLEMS)
