"""Export of a run's networks to Hugging Face directories, for transformers and for `load`."""

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath

from asyppo_jax.config import Config, UserError
from asyppo_jax.models.formats.huggingface import save_params
from asyppo_jax.runs.checkpoint import is_run, read_settings
from asyppo_jax.runs.load import RUN_SETTINGS, Dtype, Step, load_actor, load_critics
from asyppo_jax.runs.model_card import actor_card, critic_card
from asyppo_jax.runtime.paths import absolute, in_bucket, resolve_directory
from asyppo_jax.sampling.loaded import LoadedActor
from asyppo_jax.tasks.tokenizers import stop_token_ids

# Fields of the base model's config.json that do not describe its shape; other programs read them.
_COPIED_FIELDS = ("max_position_embeddings", "bos_token_id", "eos_token_id", "pad_token_id")


class ExportError(UserError, ValueError):
    """An export that cannot be made; the message says why and how to fix it."""


def export_run(
    workdir: str,
    output: str,
    *,
    step: Step = "latest",
    dtype: Dtype = "float32",
    base: str | None = None,
) -> list[Path]:
    """Writes `output/actor`, `output/critic_0`, … and returns these directories.

    Each has weights, tokenizer, model card and plot. The actor becomes a `…ForCausalLM`, a critic a
    `…ForTokenClassification` with one label, the value. `dtype` is the dtype of the weights on
    disk; float32 is lossless. The files are written to a directory beside `output`, which is
    renamed when it is complete.

    Raises:
        ExportError: `workdir` is not a run, or `output` is not empty or is in a bucket.
        CheckpointError, ModelError: see `load.load_actor`.
    """
    if not is_run(workdir):
        is_model = any(absolute(workdir).glob("*.safetensors"))
        found = "is a Hugging Face directory already" if is_model else "holds no run"
        raise ExportError(f"{workdir} {found}; set --workdir to the directory of a run")
    if in_bucket(output):
        raise ExportError(f"{output} is in a bucket; export to a local directory and copy it")
    out = Path(output)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        what = "is not empty" if out.is_dir() else "is a file"
        raise ExportError(f"{output} {what}; set another --output")
    partial = out.parent / f".{out.name}.partial-{os.getpid()}"
    try:
        names = _write_networks(workdir, partial, step=step, dtype=dtype, base=base)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return [out / name for name in names]


def _write_networks(
    workdir: str, out: Path, *, step: Step, dtype: Dtype, base: str | None
) -> list[str]:
    """Writes all networks of a run to a new directory; returns the names of theirs."""
    actor = load_actor(workdir, step=step, base=base)
    assert actor.step is not None  # it is a run's
    # The settings as the run has them; those of `actor` may name a copy of the base model.
    config = read_settings(workdir)
    name = f"{Path(workdir).name}-step-{actor.step}"
    directories = [out / "actor"]
    save_params(directories[0], actor.networks.actor.config, _to_host(actor.params), "actor", dtype)
    card = actor_card(name, workdir, actor.step, config)
    _write_other_files(directories[0], actor, card, config, workdir)
    if config.algorithm.num_critics:
        critics = load_critics(workdir, step=actor.step, base=base)
        assert critics.networks.critic is not None
        shape, head = critics.networks.critic.config, critics.networks.value_head
        for k in range(critics.num_critics):
            params = _to_host(jax.tree.map(lambda stacked, k=k: stacked[k], critics.params))
            directories.append(out / f"critic_{k}")
            save_params(directories[-1], shape, params, "critic", dtype, value_head=head)
            card = critic_card(f"{name}-critic-{k}", workdir, actor.step, config, k)
            _write_other_files(directories[-1], actor, card, config, workdir)
            if config.value.anchor != "none":
                _add_to_config(directories[-1], {"value_anchor": config.value.anchor})
            if reference := config.value.reference_answer:
                _add_to_config(directories[-1], {"value_reference_answer": reference})
    return [directory.name for directory in directories]


def _add_to_config(directory: Path, fields: dict[str, Any]) -> None:
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields, indent=2) + "\n")


def _to_host(params: Any) -> Any:
    return jax.tree.map(np.asarray, params)


def _write_other_files(
    directory: Path, actor: LoadedActor, card: str, config: Config, workdir: str
) -> None:
    """Writes all but the weights: tokenizer, generation settings, model card, settings, plot."""
    actor.tokenizer.save_pretrained(str(directory))
    base = resolve_directory(actor.config.actor.path)
    generation = base / "generation_config.json"
    options = json.loads(generation.read_text()) if generation.is_file() else {}
    # All tokens that ended an answer in the run, including `config.sampling.stop_tokens`.
    stop_tokens = actor.config.sampling.stop_tokens
    options["eos_token_id"] = list(stop_token_ids(actor.tokenizer, str(base), stop_tokens))
    (directory / generation.name).write_text(json.dumps(options, indent=2) + "\n")
    base_config = json.loads((base / "config.json").read_text())
    copied = {name: base_config[name] for name in _COPIED_FIELDS if name in base_config}
    _add_to_config(directory, copied)
    (directory / "README.md").write_text(card, encoding="utf-8")
    settings = dataclasses.asdict(config)
    (directory / RUN_SETTINGS).write_text(json.dumps(settings, indent=2) + "\n")
    plot: epath.Path = absolute(workdir) / "plots.png"
    if plot.is_file():
        (directory / plot.name).write_bytes(plot.read_bytes())
