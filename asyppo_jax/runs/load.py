"""Loading the actor or the critics of a run, a Hugging Face directory, or a hub name.

Only parameters are read, never optimizer state. They are read directly into their shards on any
mesh: a checkpoint written on many devices loads on one.
"""

import dataclasses
import json
import os
from collections.abc import Sequence
from typing import Any, Literal

import jax
import numpy as np
from etils import epath
from flax.core import meta
from jax.sharding import Mesh

from asyppo_jax.config import Config, MeshConfig, NetworkConfig, PromptConfig
from asyppo_jax.config.reading import from_dict
from asyppo_jax.models.actor_critic import actor_shapes, critic_shapes
from asyppo_jax.models.config import ModelConfig, ModelError
from asyppo_jax.models.formats.huggingface import (
    load_config,
    load_params,
    load_reference_answer,
    load_value_anchor,
    load_value_head,
)
from asyppo_jax.models.pretrained import (
    critic_source,
    load_critic_alone,
    load_networks,
    value_head,
)
from asyppo_jax.ops.value_heads import ValueHead
from asyppo_jax.runs.base_files import with_kept_base
from asyppo_jax.runs.checkpoint import (
    CheckpointError,
    choose_step,
    is_run,
    read_settings,
    restore_parts,
)
from asyppo_jax.runtime.paths import absolute, resolve_directory
from asyppo_jax.runtime.sharding import make_mesh, param_shardings, placed, put
from asyppo_jax.sampling.loaded import LoadedActor, LoadedCritics
from asyppo_jax.tasks.tokenizers import Tokenizer, check_rows, load_tokenizer
from asyppo_jax.types import Params

RUN_SETTINGS = "run_config.json"  # the run's settings in a directory that `export` wrote

Step = int | Literal["latest", "best"]
Dtype = Literal["float32", "bfloat16"]


def load_actor(
    path: str | os.PathLike[str],
    *,
    step: Step = "latest",
    mesh: Mesh | None = None,
    dtype: Dtype | None = None,
    base: str | None = None,
) -> LoadedActor:
    """The actor of a run's workdir, a Hugging Face directory, or a hub name.

    Args:
        path: one of the three; a directory with checkpoints is a workdir. A directory that `export`
            wrote keeps the prompts, stop tokens and lengths of its run.
        step: the checkpoint of a run to load ("best": the best held-out mean reward).
        mesh: the mesh of the parameters; None: all devices (`sharding.make_mesh`).
        dtype: the dtype of activations; None: that of the run, or float32. Parameters are float32.
        base: for a run, the model directory with architecture and tokenizer; None: the one that it
            was trained from (`config.actor.path`) or, if that is missing, the copy in the workdir.

    Raises:
        CheckpointError, ModelError, ConfigError: with a one-sentence message.
    """
    mesh = make_mesh(MeshConfig()) if mesh is None else mesh
    path = os.fspath(path)
    config, run_step, of_run = _settings(path, step, base)
    source = dataclasses.replace(config.actor, dtype=dtype or config.actor.dtype)
    config = dataclasses.replace(config, actor=source)
    if run_step is not None:
        _check_exists(path, "actor", source)
    without_critics = dataclasses.replace(config.algorithm, num_critics=0)
    networks = load_networks(dataclasses.replace(config, algorithm=without_critics))
    tokenizer = load_tokenizer(source.path)
    check_rows(tokenizer, networks.actor.config.vocab_size, source.path)
    boxed = actor_shapes(networks.actor)
    if run_step is None:
        if not of_run:
            config = dataclasses.replace(config, prompt=_plain_prompt(tokenizer))
        params = load_params(path, networks.actor.config, "actor")
        params = put(params, param_shardings(boxed, mesh))
    else:
        params = _restore(path, run_step, "actor_params", boxed, mesh)
    return LoadedActor(path, networks, params, tokenizer, config, run_step, mesh, of_run)


def load_critics(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    step: Step = "latest",
    mesh: Mesh | None = None,
    dtype: Dtype | None = None,
    base: str | None = None,
) -> LoadedCritics:
    """The critics of a run's workdir, or of Hugging Face directories that `export` wrote.

    `path` is the workdir of a run, the directory of one critic, a directory that contains
    `critic_0`, `critic_1`, …, or a list of critic directories or hub names. The other arguments are
    those of `load_actor`; `base` is the base model of the critics.

    Raises:
        CheckpointError: the run has no critics.
        ModelError: a directory has no value head, or the critics have different architectures.
    """
    mesh = make_mesh(MeshConfig()) if mesh is None else mesh
    paths = _critic_paths(path)
    config, run_step, _ = _settings(paths[0], step, base)
    source = config.actor if run_step is None else critic_source(config)
    source = dataclasses.replace(source, dtype=dtype or source.dtype)
    count = len(paths) if run_step is None else config.algorithm.num_critics
    if count == 0:
        raise CheckpointError(
            f"{path} is a run with config.algorithm.num_critics = 0; it has no critics to load"
        )
    if run_step is not None:
        _check_exists(paths[0], "critic" if config.critic.path else "actor", source)
    head = load_value_head(paths[0]) if run_step is None else value_head(config.value)
    if run_step is None:
        anchor: Any = load_value_anchor(paths[0])
        reference = load_reference_answer(paths[0])
        value = dataclasses.replace(config.value, anchor=anchor, reference_answer=reference)
        config = dataclasses.replace(config, value=value)
    networks = load_critic_alone(source, head)
    critic = networks.critic
    assert critic is not None
    boxed = critic_shapes(critic, count)
    if run_step is None:
        of_each = [
            _critic_params(critic_path, paths[0], critic.config, head) for critic_path in paths
        ]
        params = jax.tree.map(lambda *leaves: np.stack(leaves), *of_each)
        params = put(params, param_shardings(boxed, mesh))
    else:
        params = _restore(paths[0], run_step, "critic_params", boxed, mesh)
    return LoadedCritics(paths[0], networks, params, count, config, run_step, mesh)


def _settings(path: str, step: Step, base: str | None) -> tuple[Config, int | None, bool]:
    """The settings, the step to load (None: `path` is no run), and if they are those of a run."""
    if not is_run(path):
        _check_not_a_part_of_a_run(path)
        if step != "latest":
            raise CheckpointError(
                f"step is {step!r}, but {path} is no run and has one set of weights; leave step "
                "out, or give the run"
            )
        exported = _exported_settings(path)
        config = exported or Config()
        config = dataclasses.replace(config, actor=NetworkConfig(path=path))
        return config, None, exported is not None
    config, run_step = read_settings(path), choose_step(path, step)
    if base is None:
        config = with_kept_base(config, path)
    else:
        config = dataclasses.replace(
            config,
            actor=dataclasses.replace(config.actor, path=base, architecture=""),
            critic=dataclasses.replace(config.critic, path="", architecture=""),
        )
    return config, run_step, True


def _check_not_a_part_of_a_run(path: str) -> None:
    """Raises `CheckpointError` on a directory in a run that is no model, or one that has runs."""
    directory = absolute(path)
    if not directory.is_dir() or (directory / "config.json").is_file():
        return
    inside = next((child for child in directory.iterdir() if is_run(str(child))), None)
    if inside is not None:
        raise CheckpointError(f"{path} contains runs; give one of them, such as {str(inside)!r}")
    run = next((parent for parent in directory.parents if is_run(str(parent))), None)
    if run is not None:
        step = f" and step={directory.name}" if directory.name.isdigit() else ""
        raise CheckpointError(f"{path} is a part of a run; give the run, {str(run)!r}{step}")


def _exported_settings(path: str) -> Config | None:
    """The settings of the run that a directory was exported from; None for all other models."""
    file = absolute(path) / RUN_SETTINGS
    if not file.is_file():
        return None
    try:
        return from_dict(json.loads(file.read_text()))
    except ValueError as error:
        raise ModelError(
            f"{file} does not have the settings of a run ({error}); export the run again, or "
            "remove the file to load the model without them"
        ) from error


def _check_exists(run: str, name: str, source: NetworkConfig) -> None:
    try:
        resolve_directory(source.path)
    except ModelError as error:
        raise ModelError(
            f"{run} was trained from config.{name}.path = {source.path!r}, which is missing "
            f"({error}); set base (--base) to the directory of that model"
        ) from error


def _restore(path: str, step: int, field: str, boxed: Params, mesh: Mesh) -> Params:
    target = placed(meta.unbox(boxed), param_shardings(boxed, mesh))
    return restore_parts(path, step, {field: target})[field]


def _plain_prompt(tokenizer: Tokenizer) -> PromptConfig:
    """The chat template without a system prompt; without a chat template, the problem alone."""
    return PromptConfig(
        template="chat" if tokenizer.chat_template else "{problem}", system_prompt=""
    )


def _critic_paths(path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[str]:
    if not isinstance(path, str | os.PathLike):
        if not path:
            raise ModelError("the list of critics is empty; give one directory per critic")
        return [os.fspath(critic) for critic in path]
    path = os.fspath(path)
    directory = epath.Path(path)
    numbered = [directory / f"critic_{k}" for k in range(len(list(directory.glob("critic_*"))))]
    return [str(critic) for critic in numbered] or [path]


def _critic_params(path: str, first: str, config: ModelConfig, head: ValueHead) -> Params:
    if load_config(path) != config or load_value_head(path) != head:
        raise ModelError(
            f"the critics {first} and {path} have different architectures and cannot be stacked; "
            "load them in separate calls"
        )
    params = load_params(path, config, "critic", head.bins)
    if "value_kernel" not in params:
        raise ModelError(
            f"{path} has no value head (tensor score.weight); give a critic that export wrote"
        )
    return {"value_bias": np.zeros(head.output_shape, np.float32), **params}
