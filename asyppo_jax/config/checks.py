"""Settings that cannot work together: found before anything is loaded."""

import math

from asyppo_jax.config.errors import ConfigError
from asyppo_jax.config.settings import (
    AlgorithmConfig,
    BatchingConfig,
    Config,
    MeshConfig,
    OptimizerConfig,
    SamplingConfig,
    Truncation,
)
from asyppo_jax.config.value_checks import check_values


def check_config(config: Config) -> None:
    """Raises `ConfigError` on sizes and fractions that cannot work; names field and fix."""
    algorithm, sampling, batching = config.algorithm, config.sampling, config.batching
    for name in ("advantage_mask_fraction", "entropy_mask_fraction"):
        value = getattr(algorithm, name)
        if not 0 <= value < 1:
            raise ConfigError(f"config.algorithm.{name} is {value}; it must be in [0, 1)")
    for name in ("gamma", "gae_lambda"):
        value = getattr(algorithm, name)
        if not 0 <= value <= 1:
            raise ConfigError(f"config.algorithm.{name} is {value}; it must be in [0, 1]")
    for name in ("kl_coef", "positive_nll_coef"):
        value = getattr(algorithm, name)
        if not 0 <= value < math.inf:
            raise ConfigError(
                f"config.algorithm.{name} is {value}; it must be 0 (off) or a positive number"
            )
    if config.checkpoint.keep < 1:
        raise ConfigError(
            f"config.checkpoint.keep is {config.checkpoint.keep}; it must be 1 or more, because a "
            "run continues from its latest checkpoint"
        )
    check_truncation("config.sampling.", sampling)
    check_truncation("config.evaluation.", config.evaluation)
    _check_sampling(sampling)
    critics, group = algorithm.num_critics, sampling.group_size
    if critics < 0:
        raise ConfigError(f"config.algorithm.num_critics is {critics}; it must be 0 or more")
    if critics == 0 and algorithm.advantages == "gae":
        raise ConfigError(
            "config.algorithm.advantages is 'gae', which needs the values of critics, but "
            "config.algorithm.num_critics is 0; set advantages to 'grpo', or have a critic"
        )
    _check_estimator(algorithm)
    check_values(config)
    _check_actor_loss(algorithm, sampling)
    _check_schedule("config.actor_optimizer", config.actor_optimizer)
    _check_schedule("config.critic_optimizer", config.critic_optimizer)
    if critics and group % critics:
        raise ConfigError(
            f"config.sampling.group_size is {group}, which {critics} critics cannot share evenly; "
            f"make it a multiple of config.algorithm.num_critics = {critics}"
        )
    batch = sampling.num_prompts * group
    for name in ("actor_minibatch_size", "critic_minibatch_size"):
        size = getattr(batching, name)
        _check_divides(
            f"config.batching.{name}", size, "the batch, num_prompts * group_size,", batch
        )
    total = "config.batching.actor_minibatch_size"
    part, size = "config.batching.microbatch_size", batching.microbatch_size
    _check_divides(part, size, total, batching.actor_minibatch_size)
    if critics:
        _check_critic_microbatch(batching, critics)
    if batching.rows_per_prompt != 1:
        _check_rows_per_prompt(batching, group, critics)
    for name in ("actor", "critic"):
        if (unroll := getattr(config, name).unroll) < 0:
            raise ConfigError(
                f"config.{name}.unroll is {unroll}; it is a number of layers, or 0 for all"
            )


def _check_estimator(algorithm: AlgorithmConfig) -> None:
    name, whitening = algorithm.advantages, algorithm.advantage_whitening
    if algorithm.group_scale != "std" and name != "grpo":
        raise ConfigError(
            f"config.algorithm.group_scale is {algorithm.group_scale!r}, which has no effect with "
            f"config.algorithm.advantages = {name!r}; leave it, or use 'grpo'"
        )
    if name == "rloo" and whitening != "none":
        raise ConfigError(
            f"config.algorithm.advantages is 'rloo', which is not whitened, but "
            f"config.algorithm.advantage_whitening is {whitening!r}; set it to 'none', or use "
            "'reinforce_plus_plus_baseline'"
        )
    if name.startswith("reinforce_plus_plus") and whitening == "none":
        raise ConfigError(
            f"config.algorithm.advantages is {name!r}, which is normalized over the batch, but "
            "config.algorithm.advantage_whitening is 'none'; set it to 'before_mask'"
        )


def _check_actor_loss(algorithm: AlgorithmConfig, sampling: SamplingConfig) -> None:
    zero_spread = algorithm.zero_spread_groups
    if zero_spread != "keep" and sampling.group_size == 1:
        raise ConfigError(
            f"config.algorithm.zero_spread_groups is {zero_spread!r}, but config.sampling."
            "group_size is 1, so every group would be dropped; set zero_spread_groups to 'keep', "
            "or sample groups"
        )
    if zero_spread == "resample" and sampling.max_rounds < 2:
        raise ConfigError(
            f"config.sampling.max_rounds is {sampling.max_rounds}, so config.algorithm."
            "zero_spread_groups = 'resample' samples nothing again; make it 2 or more, or set "
            "zero_spread_groups to 'drop'"
        )
    longest, buffer = sampling.max_completion_length, algorithm.overlong_buffer
    if not 0 <= buffer <= longest:
        raise ConfigError(
            f"config.algorithm.overlong_buffer is {buffer}; it must be between 0 (off) and "
            f"config.sampling.max_completion_length = {longest}"
        )
    if not 0 < algorithm.overlong_penalty <= 1:
        raise ConfigError(
            f"config.algorithm.overlong_penalty is {algorithm.overlong_penalty}; it must be in "
            "(0, 1]; config.algorithm.overlong_buffer = 0 turns it off"
        )
    for name in ("clip_eps_low", "clip_eps_high"):
        if not getattr(algorithm, name) >= 0:
            raise ConfigError(
                f"config.algorithm.{name} is {getattr(algorithm, name)}; it must be 0 or more"
            )
    if algorithm.dual_clip != 0 and not algorithm.dual_clip > 1:
        raise ConfigError(
            f"config.algorithm.dual_clip is {algorithm.dual_clip}; it bounds the ratio from above "
            "1, so it must be more than 1, or 0 for off"
        )


def _check_schedule(where: str, optimizer: OptimizerConfig) -> None:
    schedule, steps = optimizer.schedule, optimizer.decay_steps
    if schedule == "constant" and (steps or optimizer.final_fraction):
        name = "decay_steps" if steps else "final_fraction"
        raise ConfigError(
            f"{where}.{name} is {getattr(optimizer, name)}, which has no effect with "
            f"{where}.schedule = 'constant'; leave it, or set schedule to 'linear' or 'cosine'"
        )
    if schedule != "constant" and steps < 1:
        raise ConfigError(
            f"{where}.decay_steps is {steps}; with {where}.schedule = {schedule!r} it must be 1 or "
            "more optimizer updates"
        )
    if not 0 <= optimizer.final_fraction <= 1:
        raise ConfigError(
            f"{where}.final_fraction is {optimizer.final_fraction}; it must be in [0, 1]"
        )


def _check_rows_per_prompt(batching: BatchingConfig, group: int, critics: int) -> None:
    name, size = "config.batching.rows_per_prompt", batching.rows_per_prompt
    share = group // max(1, critics)
    _check_divides(name, size, "a critic's share of a group, group_size / num_critics,", share)
    part, microbatch = "config.batching.microbatch_size", batching.microbatch_size
    _check_divides(name, size, part, microbatch)
    if critics:
        part = f"{part} / num_critics, or critic_microbatch_size,"
        _check_divides(name, size, part, batching.critic_microbatch(critics))
    for field in ("actor_minibatch_size", "critic_minibatch_size"):
        minibatch = getattr(batching, field)
        if minibatch % group:
            raise ConfigError(
                f"config.batching.{field} is {minibatch}; with {name} = {size} it must contain "
                f"complete groups: make it a multiple of config.sampling.group_size = {group}"
            )


def _check_critic_microbatch(batching: BatchingConfig, critics: int) -> None:
    name, total = "config.algorithm.num_critics", "config.batching.critic_minibatch_size"
    _check_divides(name, critics, total, batching.critic_minibatch_size)
    part, size = "config.batching.critic_microbatch_size", batching.critic_microbatch_size
    if not size:
        part, size = "config.batching.microbatch_size", batching.microbatch_size
        _check_divides(name, critics, part, size)
    size = batching.critic_microbatch(critics)
    share = batching.critic_minibatch_size // critics
    _check_divides(f"{part} (for each critic)", size, f"a critic's share of {total}", share)


def check_truncation(where: str, section: Truncation) -> None:
    """Raises `ConfigError` on an option out of range; `where` is put before its name."""
    if not section.temperature >= 0:
        raise ConfigError(
            f"{where}temperature is {section.temperature}; it must be 0 (greedy) or more"
        )
    if section.top_k < 0:
        raise ConfigError(f"{where}top_k is {section.top_k}; it must be 1 or more, or 0 for all")
    if not 0 < section.top_p <= 1:
        raise ConfigError(f"{where}top_p is {section.top_p}; it must be in (0, 1]")
    if not 0 <= section.min_p <= 1:
        raise ConfigError(f"{where}min_p is {section.min_p}; it must be in [0, 1]")


def _check_sampling(sampling: SamplingConfig) -> None:
    batch = sampling.num_prompts * sampling.group_size
    if not 0 <= sampling.slots <= batch:
        raise ConfigError(
            f"config.sampling.slots is {sampling.slots}; it must be between 0 (all) and the batch, "
            f"num_prompts * group_size = {batch}"
        )
    total = "config.sampling.num_prompts"
    _check_divides("config.sampling.chunks", sampling.chunks, total, sampling.num_prompts)


def _check_divides(part: str, part_size: int, total: str, total_size: int) -> None:
    if part_size < 1 or total_size % part_size:
        raise ConfigError(
            f"{part} is {part_size}, which does not divide {total} = {total_size}; "
            f"choose a divisor of {total_size}"
        )


def mesh_shape(mesh: MeshConfig, num_devices: int) -> tuple[int, int]:
    """The sizes (data, model) of a mesh over `num_devices`; `ConfigError` if they do not fit."""
    data = num_devices // max(mesh.model, 1) if mesh.data == -1 else mesh.data
    if min(data, mesh.model) < 1 or data * mesh.model != num_devices:
        there = "is 1 device" if num_devices == 1 else f"are {num_devices} devices"
        raise ConfigError(
            f"config.mesh is data={mesh.data}, model={mesh.model}, but there {there}; "
            f"{_mesh_advice(mesh, num_devices)}"
        )
    return data, mesh.model


def _mesh_advice(mesh: MeshConfig, num_devices: int) -> str:
    if mesh.model < 1:
        return "set config.mesh.model to 1 or more"
    if num_devices % mesh.model == 0:
        return "make data * model equal to that number, or set config.mesh.data = -1"
    divisor = math.gcd(mesh.model, num_devices)
    return (
        f"set config.mesh.model to a divisor of {num_devices}, such as {divisor}, with data = -1, "
        f"or use a slice with a multiple of {mesh.model} chips"
    )


def check_divides_data_axis(config: Config, data: int) -> None:
    """Raises `ConfigError` where prompts or microbatches cannot be sharded over `data` devices."""
    batching = config.batching
    sizes = {
        "config.sampling.num_prompts": config.sampling.num_prompts,
        "config.sampling.num_prompts / chunks": config.sampling.num_prompts
        // config.sampling.chunks,
        "config.evaluation.batch_size": config.evaluation.batch_size,
        "config.batching.microbatch_size": batching.microbatch_size,
        "config.batching.critic_microbatch_size": batching.critic_microbatch_size,
        "config.batching.microbatch_size / rows_per_prompt": batching.rows_of(
            batching.microbatch_size
        ),
    }
    for name, size in sizes.items():
        if size % data:
            raise ConfigError(f"{name} is {size}; make it a multiple of the data axis, {data}")
