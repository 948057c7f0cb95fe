"""What a run needs before its first step: the config with its functions, data and programs."""

import importlib.metadata
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from asyppo_jax.algorithm.head_init import init_heads_from_rollout
from asyppo_jax.algorithm.offload import (
    initial_state,
    make_train_step,
    reference_shardings,
    resting_shardings,
)
from asyppo_jax.algorithm.policy_losses import PolicyLoss, check_loss, resolve_loss
from asyppo_jax.algorithm.state import PROGRAMS_KEPT, programs_config, state_shardings
from asyppo_jax.config import Config, ConfigError, Settings, from_config_dict
from asyppo_jax.config.checks import check_config, check_divides_data_axis
from asyppo_jax.config.functions import function_name
from asyppo_jax.models.actor_critic import (
    Networks,
    actor_shapes,
    check_mesh_divides_heads,
    in_compute_dtype,
)
from asyppo_jax.models.config import beyond_positions
from asyppo_jax.models.pretrained import (
    critic_source,
    has_value_head,
    load_actor_params,
    load_critic_params,
    load_networks,
    load_reference_params,
)
from asyppo_jax.runs.warm_start import warm_start_params, with_warm_start
from asyppo_jax.runtime.multi_host import is_first
from asyppo_jax.runtime.phase_meshes import (
    critics_mesh,
    on_mesh,
    reshard,
    sampling_mesh,
    to_mesh,
)
from asyppo_jax.runtime.sharding import make_mesh, param_shardings, put
from asyppo_jax.sampling.sampler import (
    Sampler,
    evaluation_options,
    make_sampler,
    training_options,
)
from asyppo_jax.tasks.prompts import Prompt, make_prompts, missing_first_token
from asyppo_jax.tasks.records import load_records
from asyppo_jax.tasks.references import check_references
from asyppo_jax.tasks.rewards.functions import reward_functions
from asyppo_jax.tasks.tokenizers import (
    check_same_vocabulary,
    load_tokenizer,
    special_ids,
)
from asyppo_jax.types import Params, Rollout, TrainState


@dataclass(frozen=True)
class Run:
    """Everything that stays constant during a run."""

    config: Config
    mesh: Mesh  # of the actor, and of rollouts after sampling
    networks: Networks
    sampler: Sampler
    evaluation_sampler: Sampler
    train_prompts: Sequence[Prompt]
    eval_prompts: Sequence[Prompt]
    train_step: Callable[..., Any]
    # What makes the critics' heads after the first rollout; None: they stay as they were loaded.
    init_heads: Callable[[Params, Rollout], Params] | None

    @property
    def sampling_mesh(self) -> Mesh:
        """The mesh of sampling and evaluations."""
        return sampling_mesh(self.config.mesh, self.mesh)

    def for_sampling(self, state: TrainState) -> TrainState:
        """The state with what sampling reads of it on the sampling mesh.

        The actor's parameters are a copy in the compute dtype, which is freed with the result.
        """
        mesh, actor = self.sampling_mesh, self.networks.actor
        if mesh == self.mesh:
            return state
        shardings = param_shardings(actor_shapes(actor), mesh)
        params = reshard(state.actor_params, shardings, _cast_to(jnp.dtype(actor.dtype)))
        step, key = to_mesh((state.step, state.key), mesh)
        return state.replace(step=step, key=key, actor_params=params)


@lru_cache
def _cast_to(dtype: jnp.dtype) -> Callable[[Params], Params]:
    """One function per dtype: `jax.jit` compiles again for another one."""
    return partial(in_compute_dtype, dtype=dtype)


def prepare(config: Config, loss: PolicyLoss | None = None) -> Run:
    """The run of a config; reads data, tokenizer and architectures, and checks that they fit.

    With `config.algorithm.kl_coef` > 0 it also loads the reference.
    """
    mesh = make_mesh(config.mesh)
    check_divides_data_axis(config, mesh.size)
    networks = load_networks(config)
    check_mesh_divides_heads(networks, config.mesh)
    tokenizer = load_tokenizer(config.actor.path)
    if networks.critic is not None and critic_source(config).path != config.actor.path:
        check_same_vocabulary(tokenizer, load_tokenizer(config.critic.path))
    rows, stop_tokens = networks.actor.config.vocab_size, config.sampling.stop_tokens
    stop_ids, pad_id = special_ids(tokenizer, config.actor.path, stop_tokens, rows)
    train_records, eval_records = load_records(config.train_data), load_records(config.eval_data)
    train_prompts, train_report = make_prompts(
        train_records, tokenizer, config.prompt, config.value
    )
    eval_prompts, eval_report = make_prompts(eval_records, tokenizer, config.prompt, config.value)
    sampler = partial(
        make_sampler,
        networks,
        tokenizer,
        mesh=sampling_mesh(config.mesh, mesh),
        max_prompt_length=config.prompt.max_length,
        stop_strings=config.sampling.stop_strings,
        reference_length=config.reference_length,
    )
    for sentence in (missing_first_token(tokenizer, config.prompt), *_too_long(config, networks)):
        if sentence:
            print_once(sentence)
    for name, report in (("training", train_report), ("held-out", eval_report)):
        for sentence in filter(None, (report.summary(), report.unknown)):
            print_once(f"{name} problems: {sentence}")
    if "math" in config.reward.function.split(","):
        for name, records in (("training", train_records), ("held-out", eval_records)):
            report = check_references(records).summary()
            if report:
                print_once(f"{name} problems: {report}")
    return Run(
        config=config,
        mesh=mesh,
        networks=networks,
        sampler=sampler(training_options(config, stop_ids, pad_id)),
        evaluation_sampler=sampler(evaluation_options(config, stop_ids, pad_id)),
        train_prompts=train_prompts,
        eval_prompts=eval_prompts,
        train_step=_train_step(networks, config, mesh, loss),
        init_heads=_init_heads(networks, config, mesh),
    )


def _too_long(config: Config, networks: Networks) -> list[str]:
    """A sentence for each network whose sequences may be longer than it was trained on."""
    length = config.prompt.max_length + config.sampling.max_completion_length
    sentences = [beyond_positions(networks.actor.config, length, "actor")]
    if networks.critic is not None:
        length += config.reference_length
        sentences.append(beyond_positions(networks.critic.config, length, "critics"))
    return sentences


def _train_step(
    networks: Networks, config: Config, mesh: Mesh, loss: PolicyLoss | None
) -> Callable[..., Any]:
    """The compiled step, with the reference that `config.algorithm.kl_coef` needs."""
    step = make_train_step(networks, config, mesh, loss)
    if not config.algorithm.kl_coef:
        return step
    shardings = reference_shardings(config, networks, mesh)
    reference = put(load_reference_params(config, networks), shardings)
    return lambda state, rollout: step(state, rollout, reference)


def _init_heads(
    networks: Networks, config: Config, mesh: Mesh
) -> Callable[[Params, Rollout], Params] | None:
    """`init_heads_from_rollout`, compiled, for critics whose value heads are new."""
    if networks.critic is None or config.value.head_init == "noise":
        return None
    if config.value.warm_start or has_value_head(config):
        return None
    return _compiled_init_heads(networks, programs_config(config), mesh)


@lru_cache(maxsize=PROGRAMS_KEPT)
def _compiled_init_heads(
    networks: Networks, config: Config, mesh: Mesh
) -> Callable[[Params, Rollout], Params]:
    on_device = state_shardings(config, networks, mesh).critic_params
    resting = resting_shardings(config, networks, mesh).critic_params
    function = partial(init_heads_from_rollout, networks=networks, config=config)
    compiled = on_mesh(jax.jit(function, out_shardings=on_device), critics_mesh(config.mesh, mesh))

    def init_heads(params: Params, rollout: Rollout) -> Params:
        params = jax.device_put(params, on_device)  # they may be offloaded
        return jax.device_put(compiled(params, rollout), resting)

    return init_heads


def first_state(run: Run) -> TrainState:
    """The state before the first step: pretrained weights, sharded as the run needs them."""
    config, networks = run.config, run.networks
    shardings = resting_shardings(config, networks, run.mesh)
    actor = put(load_actor_params(config, networks), shardings.actor_params)
    if config.value.warm_start:
        mesh = critics_mesh(config.mesh, run.mesh)
        params = warm_start_params(config, networks, mesh)
        print_once(f"the critics start from those of {config.value.warm_start}")
        critics = jax.device_put(params, shardings.critic_params)
    else:
        critics = put(load_critic_params(config, networks), shardings.critic_params)
    return initial_state(config, networks, run.mesh, actor, critics)


def with_functions(config: Config | Settings, loss: Any, reward: Any, workdir: str = "") -> Config:
    """The checked config, in which functions that were given have their names.

    If its critics start from those of a run, `critic` names their base model (`with_warm_start`).

    Raises:
        ConfigError: `config` is something else, the loss does not fit, a reward is no function, or
            the critics do not fit.
    """
    if isinstance(config, Config):
        check_config(config)
    elif isinstance(config, dict | ConfigDict):
        config = from_config_dict(config)
    else:
        raise ConfigError(
            f"config is {config!r:.60}; give settings: get_config() of a file in configs/, or "
            "default_config()"
        )
    config = with_warm_start(config, workdir)
    if loss is None:
        resolve_loss(config.algorithm)
    else:
        check_loss(loss, config.algorithm)
        named = replace(config.algorithm, loss=function_name(loss))
        config = replace(config, algorithm=named)
    if reward is not None:
        names = map(function_name, reward_functions(reward))
        config = replace(config, reward=replace(config.reward, function=",".join(names)))
    return config


def print_once(text: str) -> None:
    """Prints a text in the first process only."""
    if is_first():
        print(text)


def run_origin() -> dict[str, str]:
    """The devices and the version of this program, for summary and plots."""
    device = jax.devices()[0]
    kind = device.platform if device.platform == "cpu" else device.device_kind
    count = f"{jax.device_count()} x " if jax.device_count() > 1 else ""
    return {"device": f"{count}{kind}", "version": f"asyppo_jax {_version()}"}


def _version() -> str:
    """The commit of a checkout, else the version of the installed package."""
    top = Path(__file__).parents[2]
    command = ["git", "-C", str(top), "describe", "--always", "--dirty", "--exclude=*"]
    if (top / ".git").exists() and shutil.which("git"):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode == 0:
            return done.stdout.strip()
    return importlib.metadata.version("asyppo-jax")
