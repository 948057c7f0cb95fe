"""The copies of base-model files in a workdir are enough to load the run without the models."""

from pathlib import Path

import pytest

from asyppo_jax import load_actor, load_critics
from asyppo_jax.models.config import ModelError
from asyppo_jax.runs.base_files import keep_base_files
from tests.runs.test_load import write_run
from tests.tiny import assert_trees_equal, make_config, save_model_directory


def test_copies_of_a_run_that_has_not_trained_are_replaced(tmp_path):
    config = make_config(2, actor__path=save_model_directory(tmp_path / "model"))
    copy = tmp_path / "run" / "base" / "actor"
    copy.mkdir(parents=True)
    for name in ("config.json", "of_another_model.json"):
        (copy / name).write_text("{}")
    keep_base_files(config, str(tmp_path / "run"))
    original = tmp_path / "model" / "config.json"
    assert (copy / "config.json").read_bytes() == original.read_bytes()
    assert not (copy / "of_another_model.json").exists()
    (tmp_path / "run" / "checkpoints" / "1").mkdir(parents=True)
    (copy / "config.json").write_text("{}")
    keep_base_files(config, str(tmp_path / "run"))
    assert (copy / "config.json").read_text() == "{}"


def test_a_run_whose_base_model_is_missing_is_loaded_from_its_copies(tmp_path):
    path, config, _, state = write_run(tmp_path)
    before = load_actor(path)
    keep_base_files(config, path)
    Path(config.actor.path).rename(tmp_path / "elsewhere")
    actor, critics = load_actor(path), load_critics(path)
    assert_trees_equal(actor.params, before.params)
    assert actor.tokenizer.get_vocab() == before.tokenizer.get_vocab()
    assert_trees_equal(critics.params, state.critic_params)
    (Path(path) / "base" / "actor" / "config.json").unlink()
    with pytest.raises(ModelError, match=r"set base \(--base\) to the directory of that model"):
        load_actor(path)
