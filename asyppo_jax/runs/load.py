"""Networks to apply: an actor or the critics of a run, of a Hugging Face directory or of the hub.

Only parameters are read, never an optimiser's memory, and they go straight to the devices that hold
them, on whatever mesh: a run's checkpoint from many devices loads on one.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import jax
import numpy as np
from etils import epath
from flax.core import meta
from jax.sharding import Mesh

from asyppo_jax.config import Config, MeshConfig, NetworkConfig, PromptConfig
from asyppo_jax.models.actor_critic import actor_shapes, critic_shapes
from asyppo_jax.models.config import ModelConfig, ModelError
from asyppo_jax.models.formats.huggingface import load_config, load_params, resolve_directory
from asyppo_jax.models.pretrained import critic_source, load_critic_alone, load_networks
from asyppo_jax.runs.base_files import with_kept_base
from asyppo_jax.runs.checkpoint import (
    CheckpointError,
    choose_step,
    is_run,
    read_settings,
    restore_parts,
)
from asyppo_jax.runtime.sharding import make_mesh, param_shardings, placed, put
from asyppo_jax.sampling.loaded import LoadedActor, LoadedCritics
from asyppo_jax.tasks.tokenizers import Tokenizer, load_tokenizer
from asyppo_jax.types import Params

Step = int | Literal["latest", "best"]
Dtype = Literal["float32", "bfloat16"]


def load_actor(
    path: str,
    *,
    step: Step = "latest",
    mesh: Mesh | None = None,
    dtype: Dtype | None = None,
    base: str | None = None,
) -> LoadedActor:
    """The actor of a run's workdir, a Hugging Face directory, or a hub name.

    Args:
        path: whichever of the three; a directory with checkpoints is a run's.
        step: of a run: which checkpoint ("best": by held-out accuracy).
        mesh: where the parameters go; None: over all devices (`sharding.make_mesh`).
        dtype: of activations; None: the run's, or float32. Parameters are float32.
        base: of a run: the model directory to take architecture and tokenizer from; None: the one
            that it was trained from (`config.actor.path`), or where that is no longer there the
            run's own copy.

    Raises:
        CheckpointError, ModelError, ConfigError: in one sentence.
    """
    mesh = make_mesh(MeshConfig()) if mesh is None else mesh
    config, found = _settings(path, step, base)
    source = dataclasses.replace(config.actor, dtype=dtype or config.actor.dtype)
    config = dataclasses.replace(config, actor=source)
    if found is not None:
        _check_is_here(path, "actor", source)
    without_critics = dataclasses.replace(config.algorithm, num_critics=0)
    networks = load_networks(dataclasses.replace(config, algorithm=without_critics))
    tokenizer = load_tokenizer(source.path)
    boxed = actor_shapes(networks.actor)
    if found is None:
        config = dataclasses.replace(config, prompt=_plain_prompt(tokenizer))
        params = load_params(path, networks.actor.config, "actor")
        params = put(params, param_shardings(boxed, mesh))
    else:
        params = _restore(path, found, "actor_params", boxed, mesh)
    return LoadedActor(path, networks, params, tokenizer, config, found, mesh)


def load_critics(
    path: str | Sequence[str],
    *,
    step: Step = "latest",
    mesh: Mesh | None = None,
    dtype: Dtype | None = None,
    base: str | None = None,
) -> LoadedCritics:
    """The critics of a run's workdir, or of Hugging Face directories that `export` wrote.

    `path` is a run's workdir, the directory of one critic, one that holds `critic_0`, `critic_1`,
    …, or a list of critics' directories or hub names. The other arguments are those of
    `load_actor`; `base` is the model directory that the critics were made from.

    Raises:
        CheckpointError: a run without critics.
        ModelError: a directory without a value head, or critics of unequal shapes.
    """
    mesh = make_mesh(MeshConfig()) if mesh is None else mesh
    paths = _critic_paths(path)
    config, found = _settings(paths[0], step, base)
    source = config.actor if found is None else critic_source(config)
    source = dataclasses.replace(source, dtype=dtype or source.dtype)
    count = len(paths) if found is None else config.algorithm.num_critics
    if count == 0:
        raise CheckpointError(
            f"{path} is a run with config.algorithm.num_critics = 0; it has no critics to load"
        )
    if found is not None:
        _check_is_here(paths[0], "critic" if config.critic.path else "actor", source)
    networks = load_critic_alone(source)
    critic = networks.critic
    assert critic is not None
    boxed = critic_shapes(critic, count)
    if found is None:
        each = [_critic_params(one, paths[0], critic.config) for one in paths]
        params = jax.tree.map(lambda *x: np.stack(x), *each)
        params = put(params, param_shardings(boxed, mesh))
    else:
        params = _restore(paths[0], found, "critic_params", boxed, mesh)
    return LoadedCritics(networks, params, count, config, found, mesh)


def _settings(path: str, step: Step, base: str | None) -> tuple[Config, int | None]:
    """A run's settings and the step to load; for a model's directory or name, the defaults."""
    if not is_run(path):
        return Config(actor=NetworkConfig(path=path)), None
    config, found = read_settings(path), choose_step(path, step)
    if base is None:
        config = with_kept_base(config, path)
    else:
        config = dataclasses.replace(
            config,
            actor=dataclasses.replace(config.actor, path=base, architecture=""),
            critic=dataclasses.replace(config.critic, path="", architecture=""),
        )
    return config, found


def _check_is_here(run: str, name: str, source: NetworkConfig) -> None:
    try:
        resolve_directory(source.path)
    except ModelError as error:
        raise ModelError(
            f"{run} was trained from config.{name}.path = {source.path!r}, which is not here "
            f"({error}); say where that model is with base (--base)"
        ) from error


def _restore(path: str, step: int, part: str, boxed: Params, mesh: Mesh) -> Params:
    like = placed(meta.unbox(boxed), param_shardings(boxed, mesh))
    return restore_parts(path, step, {part: like})[part]


def _plain_prompt(tokenizer: Tokenizer) -> PromptConfig:
    """The chat template without a system prompt of ours; the text as it is where there is none."""
    return PromptConfig(
        template="chat" if tokenizer.chat_template else "{problem}", system_prompt=""
    )


def _critic_paths(path: str | Sequence[str]) -> list[str]:
    if not isinstance(path, str):
        if not path:
            raise ModelError("the list of critics is empty; give a directory for each")
        return list(path)
    directory = epath.Path(path)
    numbered = [directory / f"critic_{k}" for k in range(len(list(directory.glob("critic_*"))))]
    return [str(one) for one in numbered] or [path]


def _critic_params(path: str, first: str, config: ModelConfig) -> Params:
    if load_config(path) != config:
        raise ModelError(
            f"the critics {first} and {path} are of different architectures; "
            "a stack is of one, so load them apart"
        )
    params = load_params(path, config, "critic")
    if "value_kernel" not in params:
        raise ModelError(
            f"{path} has no value head (tensor score.weight); give a critic that export wrote"
        )
    return {"value_bias": np.zeros((), np.float32), **params}
