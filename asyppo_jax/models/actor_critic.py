"""The actor and the stack of critics, as pure functions of their parameters.

Flax modules stay inside this folder; elsewhere parameters are nested dicts of arrays.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from asyppo_jax.config import ConfigError, MeshConfig
from asyppo_jax.config.settings import ModelField
from asyppo_jax.models.actor import Actor as Actor
from asyppo_jax.models.actor import (
    decoding_step,
    decoding_step_params,
    head_kernel,
    last_logits,
)
from asyppo_jax.models.attention.decode_attention import Cache
from asyppo_jax.models.attention.decode_blocks import SharedPromptCache
from asyppo_jax.models.attention.segments import Segments, positions_of
from asyppo_jax.models.attention.self_attention import AttentionBackend
from asyppo_jax.models.config import ModelConfig
from asyppo_jax.models.decoder import Decoder, trunk_fields
from asyppo_jax.models.layers import param
from asyppo_jax.ops.value_heads import ValueHead
from asyppo_jax.types import Params

_F = TypeVar("_F", bound=Callable[..., Any])


_COPY_NOISE = 0.1  # of the norm of a value head


def init_value_kernel(key: PRNGKeyArray, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    """Normal noise of standard deviation 0.1 / √D, D the first axis.

    Small, so that values start near 0; not zero, so that critics with different keys disagree from
    the first step.
    """
    return 0.1 / shape[0] ** 0.5 * jax.random.normal(key, shape, dtype)


def perturbed_copies(kernel: Array, key: PRNGKeyArray, count: int) -> Float[Array, "K ..."]:
    """`count` copies of a value head's kernel, each with noise of a tenth of its norm.

    Critics with equal trunks and equal heads would have σ = 0 until their data differ.
    """
    noise = jax.random.normal(key, (count, *kernel.shape))
    size = jnp.linalg.norm(kernel) / kernel.size**0.5
    return kernel[None] + _COPY_NOISE * size * noise


class Critic(nn.Module):
    """A decoder with a value head, whose output is made V(s_t) by `head` (float32)."""

    config: ModelConfig
    dtype: jnp.dtype = jnp.dtype("float32")
    remat: str = "none"
    attention: AttentionBackend = "xla"
    unroll: int = 1
    head: ValueHead = ValueHead()

    @nn.compact
    def __call__(self, tokens, positions, segments):
        """The value head's output z after token t, so that of s_{t+1}: [B, T] or [B, T, bins]."""
        decoder = Decoder(**trunk_fields(self), name="decoder")
        hidden, _ = decoder(tokens, positions, segments)
        outputs = self.head.output_shape
        axes, shape = ("bins",) * len(outputs), (self.config.embed_dim, *outputs)
        kernel = param(self, "value_kernel", ("embed", *axes), shape, init_value_kernel)
        bias = param(self, "value_bias", axes, outputs, nn.initializers.zeros)
        if not outputs:
            return jnp.einsum("btd,d->bt", hidden.astype(jnp.float32), kernel) + bias
        logits = jnp.einsum("btd,dm->btm", hidden.astype(jnp.float32), kernel)
        return logits + jnp.asarray(bias)[None, None]


@dataclass(frozen=True)
class Networks:
    """The two architectures of a run, hashable: what `train_step` needs besides arrays.

    `critic` is None where there are no critics.
    """

    actor: Actor
    critic: Critic | None

    def actor_head(self, params: Params) -> Float[Array, "D V"]:
        """The matrix from hidden states to logits, float32."""
        return head_kernel(self.actor, params)

    def actor_hidden(
        self, params: Params, tokens: Int[Array, "B T"], segments: Segments
    ) -> Float[Array, "B T D"]:
        """Hidden states of sequences; segment 0 is padding. Those at t predict token t + 1."""
        return _apply(self.actor, params, tokens, *_positions_and_segments(segments))[0]

    def actor_logits(
        self, params: Params, tokens: Int[Array, "B T"], segments: Segments
    ) -> Float[Array, "B T V"]:
        """All logits, float32: for tests and short texts; training never builds this array."""
        hidden = self.actor_hidden(params, tokens, segments)
        head = self.actor_head(params).astype(hidden.dtype)
        return jnp.einsum("btd,dv->btv", hidden, head, preferred_element_type=jnp.float32)

    def actor_prefill(
        self, params: Params, tokens: Int[Array, "B T"], lengths: Int[Array, " B"]
    ) -> tuple[Float[Array, "B V"], tuple[Float[Array, "L B T KV d"], Float[Array, "L B T KV d"]]]:
        """The logits after each row's first `lengths` tokens, float32, and all keys and values."""
        mask = jnp.arange(tokens.shape[1])[None] < lengths[:, None]
        hidden, kv = _apply(self.actor, params, tokens, *_positions_and_segments(mask), True)
        last = jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], axis=1)
        return last_logits(self.actor, params, last), kv

    def step_params(self, params: Params, length: int) -> Params:
        """See `actor.decoding_step_params`."""
        return decoding_step_params(self.actor, params, length)

    def actor_step(
        self,
        params: Params,
        tokens: Int[Array, " R"],
        lengths: Int[Array, " R"],
        longest: Int[Array, ""],
        cache: Cache,
        prompts: SharedPromptCache | None = None,
    ) -> tuple[Float[Array, "R V"], Cache]:
        """See `actor.decoding_step`."""
        return decoding_step(self.actor, params, tokens, lengths, longest, cache, prompts)

    def critic_values(
        self, params: Params, tokens: Int[Array, "B T"], segments: Segments
    ) -> Float[Array, "B T"]:
        """One critic's V at every token: entry t has seen tokens 0 … t. Callers vmap over K.

        Without an anchor (`config.value.anchor`), which is added to `critic_outputs`.
        """
        return self.value_head.value(self.critic_outputs(params, tokens, segments))

    def critic_outputs(
        self, params: Params, tokens: Int[Array, "B T"], segments: Segments
    ) -> Float[Array, "B T *bins"]:
        """The outputs z of one critic's value head at every token (`ops.value_heads`)."""
        assert self.critic is not None, "this run has no critics"
        return _apply(self.critic, params, tokens, *_positions_and_segments(segments))

    @property
    def value_head(self) -> ValueHead:
        """How the critics' outputs become values."""
        assert self.critic is not None, "this run has no critics"
        return self.critic.head


def in_compute_dtype(params: Params, dtype: jnp.dtype) -> Params:
    """The parameters in the compute dtype, except norm scales and value heads, which stay float32.

    Cast once here, they are not cast at every use, and all-gathers send half the bytes in bfloat16.
    No result changes.
    """

    def cast(path, x):
        return x if path[-1].key in ("scale", "value_kernel", "value_bias") else x.astype(dtype)

    return jax.tree_util.tree_map_with_path(cast, params)


def _positions_and_segments(segments: Segments) -> tuple[Int[Array, "B T"], Segments]:
    """The position of each token in its segment, and the segments as integers."""
    segments = jax.tree.map(lambda x: x.astype(jnp.int32), segments)
    return positions_of(segments), segments


def _apply(module: nn.Module, params: Params, *inputs: Any) -> Any:
    # `Any`: linen's type includes mutated variables, which these modules do not have.
    return module.apply({"params": params}, *inputs)


def _remembered(function: _F) -> _F:
    """`lru_cache`; by its type it would refuse linen modules, which do have a hash."""
    return cast("_F", lru_cache(maxsize=16)(function))


def init_actor(actor: Actor, key: PRNGKeyArray) -> Params:
    """Random parameters with their axis names (`nn.LogicallyPartitioned` boxes).

    They do not depend on `unroll`; without it they compile fastest.
    """
    return actor.clone(unroll=1).init(key, *_example())["params"]


@_remembered
def actor_shapes(actor: Actor) -> Params:
    """The shapes of `init_actor`, boxed; nothing is computed."""
    return jax.eval_shape(lambda: init_actor(actor, jax.random.key(0)))


def init_critics(critic: Critic, key: PRNGKeyArray, num_critics: int) -> Params:
    """Random parameters of K critics as one stack, with the axis name "critic" in front.

    `nn.vmap` names the new axis; `jax.vmap` of `init` would not, and every sharding would be
    silently shifted by one axis.
    """
    vmap: Any = nn.vmap  # its annotation knows no None in in_axes
    stack = vmap(
        Critic,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=None,
        axis_size=num_critics,
        metadata_params={nn.PARTITION_NAME: "critic"},
    )(critic.config, dtype=critic.dtype, remat=critic.remat, head=critic.head)
    return stack.init(key, *_example())["params"]


@_remembered
def critic_shapes(critic: Critic, num_critics: int) -> Params:
    """The shapes of `init_critics`, boxed; nothing is computed."""
    return jax.eval_shape(lambda: init_critics(critic, jax.random.key(0), num_critics))


def _example() -> tuple[jax.Array, jax.Array, jax.Array]:
    tokens = jnp.zeros((1, 1), jnp.int32)
    return tokens, tokens, jnp.ones((1, 1), jnp.int32)


def networks_of_meshes(
    networks: Networks, mesh: MeshConfig
) -> list[tuple[str, ModelField, Actor | Critic]]:
    """The networks with their names and the setting of the `model` axis that shards them."""
    meshes: list[tuple[str, ModelField, Actor | Critic]] = [("actor", "model", networks.actor)]
    if networks.critic is not None:
        own = mesh.has_own("critic_model")
        meshes.append(("critics", "critic_model" if own else "model", networks.critic))
    if mesh.has_own("sampling_model"):
        meshes.append(("actor", "sampling_model", networks.actor))
    return meshes


def check_mesh_divides_heads(networks: Networks, mesh: MeshConfig) -> None:
    """Raises `ConfigError` if the mesh of a phase does not divide the query heads of its network.

    With `config.mesh.model` they are replicated instead, because it may serve two networks.
    """
    for name, field, network in networks_of_meshes(networks, mesh):
        model, heads = getattr(mesh, field), network.config.num_heads
        if field != "model" and heads % model:
            raise ConfigError(
                f"config.mesh.{field} is {model}, which does not divide the {heads} query heads of "
                f"the {name}; set it to {math.gcd(model, heads)}, or to 0, as model"
            )
