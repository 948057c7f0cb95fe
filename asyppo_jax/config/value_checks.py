"""Settings of values and advantages that cannot work together."""

from dataclasses import fields

from asyppo_jax.config.errors import ConfigError
from asyppo_jax.config.settings import Config
from asyppo_jax.config.value_settings import ValueConfig

_LOSSES = {"sigmoid": ("bce", "squared_error"), "bins": ("two_hot", "hl_gauss")}


def check_values(config: Config) -> None:
    """Raises `ConfigError` on a contradiction in `config.value`, or in what uses values."""
    _check_head_and_loss(config)
    _check_effects(config)
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
    if config.algorithm.overlong_buffer:
        _check_own_rewards(value)
    if value.head == "bins":
        bounds = value.bin_range
        if len(bounds) != 2 or not bounds[0] <= 0 < 1 <= bounds[1]:
            raise ConfigError(
                f"config.value.bin_range is {bounds}, which does not cover rewards from 0 to 1; "
                "give (low, high) with low <= 0 and high >= 1"
            )


def _check_own_rewards(value: ValueConfig) -> None:
    """What takes the task's rewards, from 0 to 1, does not fit targets with a penalty."""
    plain = ValueConfig()
    for name in ("head", "anchor", "head_init", "noise_weights"):
        if (given := getattr(value, name)) != (default := getattr(plain, name)):
            raise ConfigError(
                f"config.value.{name} is {given!r}, which takes rewards from 0 to 1, but with "
                "config.algorithm.overlong_buffer rewards may be below 0; set it to "
                f"{default!r}, or overlong_buffer to 0"
            )


def _check_effects(config: Config) -> None:
    value, algorithm = config.value, config.algorithm
    if value.reference_answer and "{answer}" not in value.reference_answer:
        raise ConfigError(
            f"config.value.reference_answer is {value.reference_answer!r}, which does not contain "
            "{answer}; add it, or set it to '' (off)"
        )
    own = algorithm.returns_lambda
    alpha, longest = algorithm.length_adaptive_lambda, config.sampling.max_completion_length
    if alpha and alpha * longest < 1:
        raise ConfigError(
            f"config.algorithm.length_adaptive_lambda is {alpha}, so α·L is below 1 and λ is 0 for "
            f"every answer of up to {longest} tokens; make it at least {1 / longest:.3g}, or 0 for "
            "gae_lambda"
        )
    for name in ("length_adaptive_lambda", "explained_variance_gate"):
        if getattr(algorithm, name) and algorithm.num_critics and algorithm.advantages != "gae":
            raise ConfigError(
                f"config.algorithm.{name} is {getattr(algorithm, name)}, which has no effect with "
                f"config.algorithm.advantages = {algorithm.advantages!r}; leave it out"
            )
    if own is not None and algorithm.returns != "lambda":
        raise ConfigError(
            f"config.algorithm.returns_lambda is {own}, which has no effect with "
            f"config.algorithm.returns = {algorithm.returns!r}; leave it out"
        )


def _check_use(config: Config) -> None:
    value, algorithm = config.value, config.algorithm
    if algorithm.num_critics == 0:
        if algorithm.explained_variance_gate:
            raise ConfigError(
                "config.algorithm.explained_variance_gate needs critics, but "
                "config.algorithm.num_critics is 0; turn it off, or have a critic"
            )
        for name in (field.name for field in fields(ValueConfig)):
            if getattr(value, name) != getattr(ValueConfig(), name):
                raise ConfigError(
                    f"config.value.{name} needs critics, but config.algorithm.num_critics is 0; "
                    "leave it out, or have critics"
                )
        return
    _check_bar(config)


def _check_bar(config: Config) -> None:
    """A run that ends when its critics explain enough."""
    value, algorithm = config.value, config.algorithm
    bar, warmup = value.stop_at_explained_variance, algorithm.critic_warmup_steps
    if bar is not None and config.num_steps > warmup:
        raise ConfigError(
            "config.value.stop_at_explained_variance ends a run that updates critics only, but "
            f"config.num_steps = {config.num_steps} is more than config.algorithm."
            f"critic_warmup_steps = {warmup}; make it at most that"
        )
    if bar is not None and value.anchor != "none":
        raise ConfigError(
            "config.value.stop_at_explained_variance cannot tell what critics explain from what "
            f"config.value.anchor = {value.anchor!r} explains without them; use one of the two"
        )
    own = algorithm.gae_lambda if algorithm.returns_lambda is None else algorithm.returns_lambda
    if bar is not None and algorithm.returns == "lambda" and own < 1:
        raise ConfigError(
            f"config.value.stop_at_explained_variance needs returns of rewards, but with λ = {own} "
            "they contain the critics' own values; set config.algorithm.returns to 'monte_carlo', "
            "or returns_lambda to 1"
        )
