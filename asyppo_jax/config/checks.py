"""Settings that cannot work, alone or together: found before anything is loaded."""

import math

from asyppo_jax.config.errors import ConfigError
from asyppo_jax.config.ranges import check_fields
from asyppo_jax.config.settings import (
    AlgorithmConfig,
    Config,
    MeshConfig,
    ModelField,
    OptimizerConfig,
    SamplingConfig,
)
from asyppo_jax.config.value_checks import check_values


def check_config(config: Config) -> None:
    """Raises `ConfigError` on sizes and fractions that cannot work; names field and fix."""
    check_fields(config, "config.")
    _ = config.prompt.day  # raises if it is no date
    algorithm, sampling, batching = config.algorithm, config.sampling, config.batching
    _check_sampling(sampling)
    critics, group = algorithm.num_critics, sampling.group_size
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
    _check_variants(algorithm, sampling)
    batch = sampling.num_prompts * group
    for name in _minibatch_fields(config):
        size = getattr(batching, name)
        _check_divides(
            f"config.batching.{name}", size, "the batch, num_prompts * group_size,", batch
        )
    total = "config.batching.actor_minibatch_size"
    part, size = "config.batching.microbatch_size", batching.microbatch_size
    _check_divides(part, size, total, batching.actor_minibatch_size)
    if critics:
        _check_critic_microbatch(config)
    if batching.rows_per_prompt != 1:
        _check_rows_per_prompt(config)


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
    if buffer > longest:
        raise ConfigError(
            f"config.algorithm.overlong_buffer is {buffer}; it must be at most "
            f"config.sampling.max_completion_length = {longest}, or 0 (off)"
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


def _check_variants(algorithm: AlgorithmConfig, sampling: SamplingConfig) -> None:
    """How critics share the data, what the masks rank, and settings of them without effect."""
    critics, data = algorithm.num_critics, algorithm.critic_data
    for name, default in (("critic_data", "responses"), ("value_aggregation", "mean")):
        if (given := getattr(algorithm, name)) != default and critics < 2:
            raise ConfigError(
                f"config.algorithm.{name} is {given!r}, which has no effect with config.algorithm."
                f"num_critics = {critics}; set it to {default!r}, or have two or more critics"
            )
    if algorithm.value_aggregation != "mean" and algorithm.advantages != "gae":
        raise ConfigError(
            f"config.algorithm.value_aggregation is {algorithm.value_aggregation!r}, but "
            f"config.algorithm.advantages = {algorithm.advantages!r} has no values in its "
            "advantages; set value_aggregation to 'mean', or advantages to 'gae'"
        )
    fractions = algorithm.advantage_mask_fraction, algorithm.entropy_mask_fraction
    if algorithm.mask_by != "std" and not any(fractions):
        raise ConfigError(
            f"config.algorithm.mask_by is {algorithm.mask_by!r}, which has no effect with both "
            "mask fractions at 0; set it to 'std', or a fraction above 0"
        )
    shared = {"responses": "group_size", "prompts": "num_prompts"}.get(data)
    if critics and shared and (count := getattr(sampling, shared)) % critics:
        raise ConfigError(
            f"config.sampling.{shared} is {count}, which {critics} critics cannot share evenly; "
            f"make it a multiple of config.algorithm.num_critics = {critics}"
        )


def _minibatch_fields(config: Config) -> tuple[str, ...]:
    """The minibatch sizes in config.batching that have an effect."""
    of_critics = ("critic_minibatch_size",) if config.algorithm.num_critics else ()
    return ("actor_minibatch_size", *of_critics)


def _check_rows_per_prompt(config: Config) -> None:
    batching, group = config.batching, config.sampling.group_size
    critics, data = config.algorithm.num_critics, config.algorithm.critic_data
    name, size = "config.batching.rows_per_prompt", batching.rows_per_prompt
    part, share = "config.sampling.group_size", group
    if data == "responses":
        part, share = "a critic's share of a group, group_size / num_critics,", group
        share //= max(1, critics)
    _check_divides(name, size, part, share)
    part, microbatch = "config.batching.microbatch_size", batching.microbatch_size
    _check_divides(name, size, part, microbatch)
    if critics:
        part = f"{part} / num_critics, or critic_microbatch_size,"
        _check_divides(name, size, part, config.critic_sizes.microbatch)
    for field in _minibatch_fields(config):
        minibatch, groups, of = getattr(batching, field), group, ""
        if data == "prompts" and field == "critic_minibatch_size":
            groups, of = group * critics, " * num_critics"
        if minibatch % groups:
            raise ConfigError(
                f"config.batching.{field} is {minibatch}; with {name} = {size} it must contain "
                f"complete groups: make it a multiple of config.sampling.group_size{of} = {groups}"
            )


def _check_critic_microbatch(config: Config) -> None:
    batching, critics = config.batching, config.algorithm.num_critics
    name, total = "config.algorithm.num_critics", "config.batching.critic_minibatch_size"
    if config.algorithm.critic_data != "all":
        _check_divides(name, critics, total, batching.critic_minibatch_size)
        total = f"a critic's share of {total}"
    part = "config.batching.critic_microbatch_size"
    if not batching.critic_microbatch_size:
        part = "config.batching.microbatch_size"
        _check_divides(name, critics, part, batching.microbatch_size)
    sizes = config.critic_sizes
    _check_divides(f"{part} (for each critic)", sizes.microbatch, total, sizes.minibatch)


def _check_sampling(sampling: SamplingConfig) -> None:
    batch = sampling.num_prompts * sampling.group_size
    if sampling.slots > batch:
        raise ConfigError(
            f"config.sampling.slots is {sampling.slots}; it must be at most the batch, "
            f"num_prompts * group_size = {batch}, or 0 (all)"
        )
    total = "config.sampling.num_prompts"
    _check_divides("config.sampling.chunks", sampling.chunks, total, sampling.num_prompts)


def _check_divides(part: str, part_size: int, total: str, total_size: int) -> None:
    if total_size % part_size:
        raise ConfigError(
            f"{part} is {part_size}, which does not divide {total} = {total_size}; "
            f"choose a divisor of {total_size}"
        )


def mesh_shape(mesh: MeshConfig, num_devices: int, field: ModelField = "model") -> tuple[int, int]:
    """The sizes (data, model) of a mesh over `num_devices`, of which `field` is `model`.

    Raises:
        ConfigError: they do not fit the number of devices.
    """
    there = "is 1 device" if num_devices == 1 else f"are {num_devices} devices"
    if field != "model" and (model := getattr(mesh, field)):
        if num_devices % model:
            raise ConfigError(
                f"config.mesh.{field} is {model}, but there {there}; set it to a divisor of "
                f"{num_devices}, such as {math.gcd(model, num_devices)}, or to 0, as model"
            )
        return num_devices // model, model
    data = num_devices // max(mesh.model, 1) if mesh.data == -1 else mesh.data
    if min(data, mesh.model) < 1 or data * mesh.model != num_devices:
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


def check_divides_data_axis(config: Config, num_devices: int) -> None:
    """Raises `ConfigError` where rows cannot be sharded over `data` of the mesh that reads them."""
    sampling, batching = config.sampling, config.batching
    microbatch = {
        "config.batching.microbatch_size": batching.microbatch_size,
        "config.batching.microbatch_size / rows_per_prompt": batching.rows_of(
            batching.microbatch_size
        ),
    }
    of_critics = {
        "config.batching.critic_microbatch_size": batching.critic_microbatch_size,
        **microbatch,  # in which the values are computed
    }
    sizes: dict[ModelField, dict[str, int]] = {
        "sampling_model": {
            "config.sampling.num_prompts": sampling.num_prompts,
            "config.sampling.num_prompts / chunks": sampling.num_prompts // sampling.chunks,
            "config.evaluation.batch_size": config.evaluation.batch_size,
        },
        "model": microbatch,
        "critic_model": of_critics if config.algorithm.num_critics else {},
    }
    for field, sizes_of_mesh in sizes.items():
        data, model = mesh_shape(config.mesh, num_devices, field)
        for name, size in sizes_of_mesh.items():
            if size % data:
                larger = num_devices // math.gcd(num_devices, size)
                raise ConfigError(
                    f"{name} is {size}; make it a multiple of the data axis, {data}"
                    + _other_model(config.mesh, field, model, larger)
                )


def _other_model(mesh: MeshConfig, field: ModelField, model: int, larger: int) -> str:
    """How a mesh of its own would fit: with this `model`, its data axis divides the rows."""
    if field == "model" or not getattr(mesh, field):
        return ""
    return f" with config.mesh.{field} = {model}, or set that to {larger}"
