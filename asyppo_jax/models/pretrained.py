"""A run's networks and their initial parameters, from the directories that its config names."""

from dataclasses import replace
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from asyppo_jax.config import BatchingConfig, Config, ConfigError, NetworkConfig, ValueConfig
from asyppo_jax.models.actor_critic import (
    Actor,
    Critic,
    Networks,
    in_compute_dtype,
    init_value_kernel,
    perturbed_copies,
)
from asyppo_jax.models.attention.decode_attention import choose_decode_backend
from asyppo_jax.models.attention.self_attention import AttentionBackend, attention_backend_for
from asyppo_jax.models.config import ModelError
from asyppo_jax.models.formats.huggingface import (
    first_layers,
    has_tensor,
    load_config,
    load_params,
    load_reference_answer,
    load_value_anchor,
    load_value_head,
)
from asyppo_jax.ops.value_heads import ValueHead
from asyppo_jax.types import Params

_KERNELS = {"splash": ("tpu",), "cudnn": ("gpu", "cuda")}  # attention backend -> where it runs


def critic_source(config: Config) -> NetworkConfig:
    """The critics' settings, with the actor's path and architecture where they name none."""
    if config.critic.path:
        return config.critic
    shape = config.critic.architecture or config.actor.architecture
    return replace(config.critic, path=config.actor.path, architecture=shape)


def load_networks(config: Config, platform: str | None = None) -> Networks:
    """The architectures of actor and critics, for `platform` (None: that of this process).

    Raises:
        ModelError: actor and critics do not share a vocabulary; both sizes are named.
        ConfigError: the attention backend that is asked for cannot serve this model.
    """
    if not config.actor.path:
        raise ModelError("config.actor.path is empty; give a model directory or a hub name")
    platform = platform or jax.default_backend()
    actor = Actor(**_fields(config.actor, platform, config.batching))
    decode = config.actor.decode_attention
    backend = choose_decode_backend(decode, platform, actor.config, actor.dtype)
    actor = actor.clone(decode=backend)
    if config.algorithm.num_critics == 0:
        return Networks(actor, None)
    source = critic_source(config)
    critic = Critic(**_fields(source, platform, config.batching), head=value_head(config.value))
    if critic.config.vocab_size != actor.config.vocab_size:
        raise ModelError(
            f"the actor ({config.actor.path}) has a vocabulary of {actor.config.vocab_size}, the "
            f"critics ({source.path}) one of {critic.config.vocab_size}; critics read the actor's "
            "tokens, so take both from one model family"
        )
    return Networks(actor, critic)


def value_head(config: ValueConfig) -> ValueHead:
    """The critics' value head, for rewards in [0, 1]."""
    if config.head == "bins":
        return ValueHead("bins", *config.bin_range, bins=config.bins)
    return ValueHead(config.head)


def load_critic_alone(
    source: NetworkConfig, head: ValueHead, platform: str | None = None
) -> Networks:
    """A critic's architecture without an actor; code that needs the actor fails."""
    fields = _fields(source, platform or jax.default_backend(), BatchingConfig())
    critic = Critic(**fields, head=head)
    return Networks(cast(Actor, None), critic)


def _fields(source: NetworkConfig, platform: str, batching: BatchingConfig) -> dict[str, Any]:
    """The fields that `Actor` and `Critic` share, by name."""
    architecture = load_config(source.architecture or source.path)
    return {
        "config": first_layers(architecture, source.num_layers),
        "dtype": jnp.dtype(source.dtype),
        "remat": source.remat,
        "attention": _attention(source, platform, batching),
        "unroll": source.unroll,
    }


def _attention(source: NetworkConfig, platform: str, batching: BatchingConfig) -> AttentionBackend:
    attention, shared = source.attention, batching.rows_per_prompt > 1
    splash_serves = not (shared and batching.packing)
    if attention == "auto":
        attention = attention_backend_for(platform)
        if attention == "splash" and not splash_serves:
            attention = "xla"
    elif attention == "splash" and not splash_serves:
        raise ConfigError(
            "attention='splash' cannot let several completions of a row see one prompt, which "
            "config.batching.packing with rows_per_prompt > 1 needs; set attention to 'auto' or "
            "'xla', or use only one of the two"
        )
    if platform not in (platforms := _KERNELS.get(attention, (platform,))):
        raise ConfigError(
            f"attention={attention!r} is a kernel for {platforms[0]}, but this is a {platform}; "
            "set config.actor.attention and config.critic.attention to 'auto' or 'xla'"
        )
    if attention == "cudnn" and (batching.packing or shared):
        return "cudnn_packed"
    return attention


def load_actor_params(config: Config, networks: Networks) -> Params:
    """The actor's parameters as float32 numpy arrays."""
    return load_params(config.actor.path, networks.actor.config, "actor")


def load_reference_params(config: Config, networks: Networks) -> Params:
    """The actor's starting parameters in its compute dtype, as numpy arrays: the reference.

    Raises:
        ModelError: the weights cannot be loaded.
    """
    try:
        params = load_actor_params(config, networks)
    except ModelError as error:
        raise ModelError(
            f"config.algorithm.kl_coef is {config.algorithm.kl_coef}, so each start of the run "
            f"loads the reference from config.actor.path = {config.actor.path!r}, which fails "
            f"({error}); put the weights that the run started from there"
        ) from error
    return in_compute_dtype(params, networks.actor.dtype)


def has_value_head(config: Config) -> bool:
    """Whether the critics' checkpoint has a value head, as `export` writes it."""
    return has_tensor(critic_source(config).path, "score.weight")


def _check_same_head(config: Config, head: ValueHead) -> None:
    path = critic_source(config).path
    of_path, anchor = load_value_head(path), load_value_anchor(path)
    if of_path != head or anchor != config.value.anchor:
        raise ModelError(
            f"the critic {path} has the value head {of_path.kind!r} and the anchor {anchor!r}, but "
            f"config.value.head is {head.kind!r} and anchor {config.value.anchor!r}; set both (and "
            "bins and bin_range) as in the run that exported it"
        )
    reference = load_reference_answer(path)
    if reference != config.value.reference_answer:
        raise ModelError(
            f"the critic {path} was trained with reference_answer = {reference!r}, but "
            f"config.value.reference_answer is {config.value.reference_answer!r}; use the same"
        )


def load_critic_params(config: Config, networks: Networks) -> Params:
    """K equal trunks from the critics' checkpoint, stacked, each with a value head of its own.

    Heads are drawn from the run's seed; if the checkpoint is a critic's, they are its head with
    noise (`perturbed_copies`). Without `algorithm.distinct_value_heads` all K are equal.
    """
    count = config.algorithm.num_critics
    if networks.critic is None:
        return {}
    critic = networks.critic
    params = load_params(critic_source(config).path, critic.config, "critic", critic.head.bins)
    key, distinct = jax.random.key(config.seed), config.algorithm.distinct_value_heads
    if "value_kernel" not in params:
        shape = (critic.config.embed_dim, *critic.head.output_shape)
        keys = jax.random.split(jax.random.fold_in(key, 1), count)
        if not distinct:
            keys = jnp.broadcast_to(keys[:1], keys.shape)
        heads = jax.vmap(lambda k: init_value_kernel(k, shape))(keys)
    else:
        _check_same_head(config, critic.head)
        head = jnp.asarray(params["value_kernel"])
        if distinct and count > 1:
            heads = perturbed_copies(head, jax.random.fold_in(key, 2), count)
        else:
            heads = jnp.stack([head] * count)
    trunk = {
        "decoder": params["decoder"],
        "value_bias": params.get("value_bias", np.zeros(critic.head.output_shape, "float32")),
    }
    # A view: K copies exist only once they are on the devices.
    stack = jax.tree.map(lambda x: np.broadcast_to(x, (count, *x.shape)), trunk)
    return stack | {"value_kernel": np.asarray(heads)}
