"""Export: our loaders and transformers read back the trained weights."""

import json

import jax
import numpy as np
import pytest

from asyppo_jax import load_actor, load_critics
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


def test_exports_that_cannot_be_made_give_a_one_sentence_error(exported, tmp_path):
    run, config, out, _ = exported
    with pytest.raises(ExportError, match="is not empty; set another --output"):
        export_run(run, str(out))
    with pytest.raises(ExportError, match="is a Hugging Face directory already"):
        export_run(config.actor.path, str(tmp_path / "x"))
    with pytest.raises(ExportError, match="is in a bucket"):
        export_run(run, "gs://bucket/x")


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
