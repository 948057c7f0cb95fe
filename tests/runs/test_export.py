"""Export: our loaders and transformers read back the trained weights."""

import json
import re
import shutil

import jax
import numpy as np
import pytest

from asyppo_jax import load_actor, load_critics
from asyppo_jax.models.config import ModelError
from asyppo_jax.runs import export
from asyppo_jax.runs.base_files import keep_base_files
from asyppo_jax.runs.checkpoint import CheckpointError
from asyppo_jax.runs.export import ExportError, export_run
from tests.runs.test_load import TOKENS, write_run
from tests.tiny import assert_trees_equal


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    directory = tmp_path_factory.mktemp("export")
    run, config, _, _ = write_run(directory)
    (directory / "run" / "plots.png").write_bytes(b"a plot")
    directories = export_run(run, str(directory / "out"), step="best")
    return run, config, directory / "out", directories


def test_the_exported_actor_has_equal_weights_tokenizer_and_settings(exported):
    run, config, out, directories = exported
    assert [d.name for d in directories] == ["actor", "critic_0", "critic_1"]
    before, after = load_actor(run, step="best"), load_actor(str(out / "actor"))
    assert_trees_equal(before.params, after.params)
    assert before.networks.actor.config == after.networks.actor.config
    assert before.tokenizer.get_vocab() == after.tokenizer.get_vocab()
    settings = json.loads((out / "actor" / "run_config.json").read_text())
    assert settings["sampling"]["group_size"] == config.sampling.group_size
    generated = [
        a.generate(["1+2"], max_completion_length=5, prompt=config.prompt) for a in (before, after)
    ]
    assert generated[0] == generated[1]


def test_the_exported_critics_are_equal_and_in_order(exported):
    run, _, out, _ = exported
    before, after = load_critics(run, step="best"), load_critics(str(out))
    assert_trees_equal(before.params, after.params)
    np.testing.assert_array_equal(before.values(TOKENS), after.values(TOKENS))


def test_bfloat16_halves_the_file_and_rounds_the_weights(exported, tmp_path):
    run, _, out, _ = exported
    export_run(run, str(tmp_path / "half"), step="best", dtype="bfloat16")
    sizes = [(d / "actor" / "model.safetensors").stat().st_size for d in (out, tmp_path / "half")]
    assert 1.7 < sizes[0] / sizes[1] < 2.1
    full, half = load_actor(str(out / "actor")), load_actor(str(tmp_path / "half" / "actor"))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1 / 256), full.params, half.params
    )


def test_the_directories_have_model_card_plot_and_stop_tokens(exported):
    _, _, out, directories = exported
    for directory in directories:
        assert (directory / "README.md").read_text().startswith("---\nlibrary_name: transformers\n")
        assert (directory / "plots.png").read_bytes() == b"a plot"
    stops = json.loads((out / "actor" / "generation_config.json").read_text())["eos_token_id"]
    assert stops == [load_actor(str(out / "actor")).tokenizer.eos_token_id]


def test_an_exported_actor_keeps_the_prompts_and_lengths_of_its_run(exported):
    _, config, out, _ = exported
    actor = load_actor(out / "actor")
    assert actor.config.prompt == config.prompt
    assert actor.config.sampling == config.sampling
    assert actor.step is None and actor.of_run


def test_settings_beside_a_model_that_are_no_settings_are_refused(exported, tmp_path):
    _, _, out, _ = exported
    copy = shutil.copytree(out / "actor", tmp_path / "copy")
    (copy / "run_config.json").write_text('{"colour": 1}')
    with pytest.raises(ModelError, match=r"run_config\.json .*colour.*; export the run again"):
        load_actor(copy)
    (copy / "run_config.json").unlink()
    assert not load_actor(copy).of_run


def test_an_export_has_no_steps_to_choose_from(exported):
    _, _, out, _ = exported
    for step in (20, "best"):
        with pytest.raises(CheckpointError, match=f"step is {step!r}, but .*actor is no run and"):
            load_actor(out / "actor", step=step)


def test_a_critic_is_no_actor(exported):
    _, _, out, _ = exported
    with pytest.raises(ModelError, match=r"has a critic .*; read it with load_critics"):
        load_actor(out / "critic_0")


def test_exports_that_cannot_be_made_give_a_one_sentence_error(exported, tmp_path):
    run, config, out, _ = exported
    with pytest.raises(ExportError, match="is not empty; set another --output"):
        export_run(run, str(out))
    with pytest.raises(ExportError, match="is a Hugging Face directory already"):
        export_run(config.actor.path, str(tmp_path / "x"))
    with pytest.raises(ExportError, match="is in a bucket"):
        export_run(run, "gs://bucket/x")
    for nothing in (str(tmp_path / "nothing"), "nobody/nothing"):
        with pytest.raises(ExportError, match="nothing holds no run; set --workdir to the directo"):
            export_run(nothing, str(tmp_path / "x"))


def test_an_export_that_fails_leaves_nothing(exported, tmp_path, monkeypatch):
    run, _, _, _ = exported

    def torn(*arguments, **options):
        raise CheckpointError("torn")

    monkeypatch.setattr(export, "load_critics", torn)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="torn"):
        export_run(run, str(tmp_path / "empty"), step="best")
    assert [p.name for p in tmp_path.iterdir()] == ["empty"]
    assert not list((tmp_path / "empty").iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="is a file; set another"):
        export_run(run, str(tmp_path / "file"))


def test_the_parent_of_an_export_is_refused_with_the_directory_of_the_actor(exported):
    _, _, out, _ = exported
    with pytest.raises(ModelError, match=r"out has no config\.json; .*out/actor has one"):
        load_actor(str(out))


def test_an_export_has_the_settings_of_the_run_though_its_base_model_was_moved(tmp_path):
    run, config, _, _ = write_run(tmp_path)
    keep_base_files(config, run)
    (tmp_path / "model").rename(tmp_path / "moved")
    export_run(run, str(tmp_path / "out"))
    settings = json.loads((tmp_path / "out" / "actor" / "run_config.json").read_text())
    assert settings["actor"]["path"] == config.actor.path
    parts = "/".join(config.actor.path.split("/")[-2:])
    assert f"| base model | {parts} (a" in (tmp_path / "out" / "actor" / "README.md").read_text()


def _code(out, number):
    """The code of the actor's card, to be run in its directory."""
    card = (out / "actor" / "README.md").read_text()
    code = re.findall(r"```python\n(.*?)```", card, re.DOTALL)[number]
    return code.replace("DIRECTORY", str(out / "actor"))


def test_the_jax_code_of_the_card_runs(exported, capsys):
    _, config, out, _ = exported
    exec(_code(out, 1), {})
    actor = load_actor(str(out / "actor"))
    expected = actor.generate(["7+5+8+9"], prompt=config.prompt, temperature=0.0)
    assert capsys.readouterr().out == f"{expected}\n"


@pytest.mark.torch
def test_the_transformers_code_of_the_card_runs(exported, capsys):
    pytest.importorskip("torch")
    _, _, out, _ = exported
    exec(_code(out, 0), {})
    assert "7+5+8+9=" in capsys.readouterr().out.replace(" ", "")


@pytest.mark.torch
def test_transformers_gives_the_same_logits_and_values(exported):
    torch = pytest.importorskip("torch")
    import transformers

    run, _, out, _ = exported
    tokens = torch.tensor(TOKENS)
    model = transformers.AutoModelForCausalLM.from_pretrained(out / "actor").eval()
    with torch.no_grad():
        theirs = model(tokens).logits.numpy()
    np.testing.assert_allclose(load_actor(run, step="best").logits(TOKENS), theirs, atol=1e-4)
    values = load_critics(run, step="best").values(TOKENS)
    for k in range(2):
        critic = transformers.AutoModelForTokenClassification.from_pretrained(out / f"critic_{k}")
        with torch.no_grad():
            theirs = critic.eval()(tokens).logits[..., 0].numpy()
        np.testing.assert_allclose(values[k], theirs, atol=1e-4)
