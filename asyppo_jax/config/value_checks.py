"""Settings of values and advantages that cannot work together."""

from asyppo_jax.config.errors import ConfigError
from asyppo_jax.config.settings import Config

_LOSSES = {"sigmoid": ("bce", "squared_error"), "bins": ("two_hot", "hl_gauss")}


def check_values(config: Config) -> None:
    """Raises `ConfigError` on a contradiction in `config.value`, or in what uses values."""
    _check_head_and_loss(config)
    _check_ranges(config)
    _check_use(config)


def _check_head_and_loss(config: Config) -> None:
    value = config.value
    allowed = _LOSSES.get(value.head, ("squared_error",))
    if value.loss not in allowed:
        needed = {"bce": "sigmoid", "two_hot": "bins", "hl_gauss": "bins"}.get(value.loss)
        fix = f"set head to {needed!r}" if needed else f"set loss to {allowed[0]!r}"
        raise ConfigError(
            f"config.value.loss is {value.loss!r}, which does not fit config.value.head = "
            f"{value.head!r}; {fix}"
        )
    if value.anchor != "none" and value.head == "bins":
        raise ConfigError(
            f"config.value.anchor is {value.anchor!r}, to which one output per token is added, but "
            "config.value.head is 'bins'; use another head, or set anchor to 'none'"
        )
    if value.clip_eps and value.loss != "squared_error":
        raise ConfigError(
            f"config.value.clip_eps is {value.clip_eps}, which clips the squared error, but "
            f"config.value.loss is {value.loss!r}; set clip_eps to 0"
        )
    if config.algorithm.overlong_buffer and value.head != "linear":
        raise ConfigError(
            f"config.value.head is {value.head!r}, for rewards from 0 to 1, but rewards may be "
            "below 0 with config.algorithm.overlong_buffer; set head to 'linear', or "
            "overlong_buffer to 0"
        )
    if value.head == "bins":
        bounds = value.bin_range
        if len(bounds) != 2 or not bounds[0] <= 0 < 1 <= bounds[1]:
            raise ConfigError(
                f"config.value.bin_range is {bounds}, which does not cover rewards from 0 to 1; "
                "give (low, high) with low <= 0 and high >= 1"
            )
        if value.bins < 2:
            raise ConfigError(f"config.value.bins is {value.bins}; it must be 2 or more")


def _check_ranges(config: Config) -> None:
    value, algorithm = config.value, config.algorithm
    for name in ("head_std", "hl_gauss_std"):
        if not getattr(value, name) > 0:
            raise ConfigError(f"config.value.{name} is {getattr(value, name)}; it must be above 0")
    if value.clip_eps < 0:
        raise ConfigError(f"config.value.clip_eps is {value.clip_eps}; it must be 0 (off) or more")
    for fraction in value.positions:
        if not 0 <= fraction <= 1:
            raise ConfigError(f"config.value.positions has {fraction}; it must be in [0, 1]")
    own = algorithm.returns_lambda
    if own is not None and not 0 <= own <= 1:
        raise ConfigError(f"config.algorithm.returns_lambda is {own}; it must be in [0, 1]")
    alpha, longest = algorithm.length_adaptive_lambda, config.sampling.max_completion_length
    if alpha < 0 or (alpha and alpha * longest < 1):
        raise ConfigError(
            f"config.algorithm.length_adaptive_lambda is {alpha}, so α·L is below 1 and λ is 0 for "
            f"every answer of up to {longest} tokens; make it at least {1 / longest:.3g}, or 0 for "
            "gae_lambda"
        )
    if alpha and (algorithm.advantages != "gae"):
        raise ConfigError(
            f"config.algorithm.length_adaptive_lambda is {alpha}, which has no effect with "
            f"config.algorithm.advantages = {algorithm.advantages!r}; set it to 0"
        )


def _check_use(config: Config) -> None:
    value, algorithm = config.value, config.algorithm
    if algorithm.num_critics == 0:
        if algorithm.explained_variance_gate:
            raise ConfigError(
                "config.algorithm.explained_variance_gate needs critics, but "
                "config.algorithm.num_critics is 0; turn it off, or have a critic"
            )
        if value.stop_at_explained_variance is not None:
            raise ConfigError(
                "config.value.stop_at_explained_variance needs critics, but "
                "config.algorithm.num_critics is 0; set it to None"
            )
        return
    bar, warmup = value.stop_at_explained_variance, algorithm.critic_warmup_steps
    if bar is not None and config.num_steps > warmup:
        raise ConfigError(
            "config.value.stop_at_explained_variance ends a run that updates critics only, but "
            f"config.num_steps = {config.num_steps} is more than config.algorithm."
            f"critic_warmup_steps = {warmup}; make it at most that"
        )
