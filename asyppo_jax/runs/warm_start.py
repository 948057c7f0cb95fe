"""Critics that start from those of another run: `config.critic.path = RUN`, or `value.warm_start`.

A study pays for the critics' warm-up once: a run that updates critics only, then many runs that
start with its critics. The optimizer states are new.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
from flax.core import meta
from jax.sharding import Mesh

from asyppo_jax.config import Config, ConfigError, ValueConfig
from asyppo_jax.models.actor_critic import Networks, critic_shapes, perturbed_copies
from asyppo_jax.models.pretrained import critic_source, value_head
from asyppo_jax.runs.base_files import with_kept_base
from asyppo_jax.runs.checkpoint import choose_step, is_run, read_settings, restore_parts
from asyppo_jax.runtime.sharding import param_shardings, placed
from asyppo_jax.types import Params


def with_warm_start(config: Config, workdir: str = "") -> Config:
    """The config with `critic` as in the run whose critics it starts from; others unchanged.

    `config.critic.path` may name that run; then it becomes `config.value.warm_start`, and the path
    the base model of its critics. A run in `workdir` that started so no longer needs the other.

    Raises:
        ConfigError: the run has other numbers of critics, or other value heads; or it is no run.
    """
    run = config.value.warm_start or config.critic.path
    if run and workdir and is_run(workdir):
        begun = read_settings(workdir)
        if begun.value.warm_start == run:
            value = replace(config.value, warm_start=run)
            return replace(config, critic=begun.critic, value=value)
    if not run or not (config.value.warm_start or is_run(run)):
        return config
    if not is_run(run):
        raise ConfigError(
            f"config.value.warm_start is {run!r}, which is no run with checkpoints; give the "
            "directory of a run"
        )
    start = with_kept_base(read_settings(run), run)
    _check(config, start, run)
    source = critic_source(start)
    critic = replace(
        config.critic,
        path=source.path,
        architecture=source.architecture,
        num_layers=source.num_layers,
    )
    return replace(config, critic=critic, value=replace(config.value, warm_start=run))


def _check(config: Config, start: Config, run: str) -> None:
    count, wanted = start.algorithm.num_critics, config.algorithm.num_critics
    if wanted == 0:
        raise ConfigError(
            f"critics are to start from {run}, but config.algorithm.num_critics is 0; have critics"
        )
    if count not in (1, wanted):
        raise ConfigError(
            f"critics are to start from {run}, which has {count} critics, but "
            f"config.algorithm.num_critics is {wanted}; make it {count}, or start from a run with "
            "one critic, which is copied"
        )
    if value_head(start.value) != value_head(config.value):
        raise ConfigError(
            f"critics are to start from {run}, whose config.value.head is {_head(start.value)}, "
            f"but here it is {_head(config.value)}; use the same"
        )
    if start.value.anchor != config.value.anchor:
        raise ConfigError(
            f"critics are to start from {run}, whose config.value.anchor is "
            f"{start.value.anchor!r}, but here it is {config.value.anchor!r}; use the same"
        )
    if start.value.reference_answer != config.value.reference_answer:
        raise ConfigError(
            f"critics are to start from {run}, whose config.value.reference_answer is "
            f"{start.value.reference_answer!r}, but here it is {config.value.reference_answer!r}; "
            "use the same"
        )
    layers, of_run = config.critic.num_layers, critic_source(start).num_layers
    if layers is not None and layers != of_run:
        raise ConfigError(
            f"critics are to start from {run}, whose critics have num_layers = {of_run}, but "
            f"config.critic.num_layers is {layers}; leave it out"
        )


def _head(config: ValueConfig) -> str:
    if config.head == "bins":
        return f"'bins' ({config.bins} over {config.bin_range})"
    return repr(config.head)


def warm_start_params(config: Config, networks: Networks, mesh: Mesh) -> Params:
    """The critics' parameters of the run `config.value.warm_start`, stacked, on the mesh.

    One critic is copied K times, with noise on each copy's value head (`perturbed_copies`).
    """
    run, critic = config.value.warm_start, networks.critic
    assert critic is not None
    count = read_settings(run).algorithm.num_critics
    boxed = critic_shapes(critic, count)
    target = placed(meta.unbox(boxed), param_shardings(boxed, mesh))
    step = choose_step(run, "latest")
    params = restore_parts(run, step, {"critic_params": target})["critic_params"]
    wanted = config.algorithm.num_critics
    if count == wanted:
        return params
    key = jax.random.fold_in(jax.random.key(config.seed), 2)

    def copied(one: Params) -> Params:
        stack = jax.tree.map(lambda x: jnp.repeat(x, wanted, axis=0), one)
        return {**stack, "value_kernel": perturbed_copies(one["value_kernel"][0], key, wanted)}

    with jax.set_mesh(mesh):
        return jax.jit(copied)(params)
