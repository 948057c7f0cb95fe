"""The actor and the stack of critics, as pure functions of their parameters.

Everything here is `init`/`apply` inside; outside this folder parameters are nested dicts.
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from asyppo_jax.models.config import ModelConfig
from asyppo_jax.models.decoder import Decoder, positions_of
from asyppo_jax.models.layers import Cache, param
from asyppo_jax.models.self_attention import Implementation
from asyppo_jax.types import Params

# Which tokens of a row see each other: 0 is padding, packed sequences are 1, 2, …; the mask of real
# tokens is the case of one sequence a row.
Segments: TypeAlias = Int[Array, "B T"] | Bool[Array, "B T"]


class Actor(nn.Module):
    """A decoder with a language-model head, tied to the embedding or its own."""

    config: ModelConfig
    dtype: jnp.dtype = jnp.dtype("float32")
    remat: str = "none"
    attention: Implementation = "xla"

    @nn.compact
    def __call__(self, tokens, positions, segments=None, visible=None, cache=None, start=0):
        c = self.config
        if not c.tie_embeddings:
            param(self, "lm_head", ("embed", "vocab"), (c.embed_dim, c.vocab_size))
        decoder = Decoder(c, self.dtype, self.remat, self.attention, name="decoder")
        return decoder(tokens, positions, segments, visible, cache, start)


def init_value_kernel(key: PRNGKeyArray, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    """Normal of deviation 0.1 / √D along the last axis.

    Small, so that values start near 0 (nothing known yet); never all zero, so that critics with
    different keys disagree from the first step.
    """
    return 0.1 / shape[-1] ** 0.5 * jax.random.normal(key, shape, dtype)


class Critic(nn.Module):
    """A decoder with a linear value head: V(s_t) in float32, read before token t is chosen."""

    config: ModelConfig
    dtype: jnp.dtype = jnp.dtype("float32")
    remat: str = "none"
    attention: Implementation = "xla"

    @nn.compact
    def __call__(self, tokens, positions, segments):
        decoder = Decoder(self.config, self.dtype, self.remat, self.attention, name="decoder")
        hidden, _ = decoder(tokens, positions, segments)
        width = self.config.embed_dim
        kernel = param(self, "value_kernel", ("embed",), (width,), init_value_kernel)
        bias = param(self, "value_bias", (), (), nn.initializers.zeros)
        return jnp.einsum("btd,d->bt", hidden.astype(jnp.float32), kernel) + bias


@dataclass(frozen=True)
class Networks:
    """The two architectures of a run, hashable: what `train_step` needs besides arrays.

    `critic` is None where there are no critics (GRPO).
    """

    actor: Actor
    critic: Critic | None

    def actor_head(self, params: Params) -> Float[Array, "D V"]:
        """The matrix from hidden states to logits, float32."""
        if self.actor.config.tie_embeddings:
            return params["decoder"]["embedding"].T
        return params["lm_head"]

    def actor_hidden(
        self, params: Params, tokens: Int[Array, "B T"], segments: Segments
    ) -> Float[Array, "B T D"]:
        """Hidden states of whole sequences (0 is padding); those at t predict token t + 1."""
        return _apply(self.actor, params, tokens, *_whole(segments))[0]

    def actor_logits(
        self, params: Params, tokens: Int[Array, "B T"], segments: Segments
    ) -> Float[Array, "B T V"]:
        """All logits, float32: for tests and short texts; training never builds this array."""
        hidden = self.actor_hidden(params, tokens, segments)
        head = self.actor_head(params).astype(hidden.dtype)
        return jnp.einsum("btd,dv->btv", hidden, head, preferred_element_type=jnp.float32)

    def actor_step(
        self,
        params: Params,
        tokens: Int[Array, "B T"],
        positions: Int[Array, "B T"],
        visible: Bool[Array, "B T S"],
        cache: Cache,
        start: Int[Array, ""] | int,
    ) -> tuple[Float[Array, "B V"], Cache]:
        """The logits after the last of the given tokens, float32, and the cache that holds them."""
        hidden, cache = _apply(self.actor, params, tokens, positions, None, visible, cache, start)
        return self._last_logits(params, hidden), cache

    def actor_prefill(
        self, params: Params, tokens: Int[Array, "B T"], segments: Segments, cache: Cache
    ) -> tuple[Float[Array, "B V"], Cache]:
        """The logits after whole prompts, float32, and the cache with them in its first T slots."""
        hidden, cache = _apply(self.actor, params, tokens, *_whole(segments), None, cache)
        return self._last_logits(params, hidden), cache

    def _last_logits(self, params: Params, hidden: Float[Array, "B T D"]) -> Float[Array, "B V"]:
        head = self.actor_head(params).astype(hidden.dtype)
        return jnp.einsum("bd,dv->bv", hidden[:, -1], head, preferred_element_type=jnp.float32)

    def critic_values(
        self, params: Params, tokens: Int[Array, "B T"], segments: Segments
    ) -> Float[Array, "B T"]:
        """One critic's V at every token: entry t has seen tokens 0 … t. Callers vmap over K."""
        assert self.critic is not None, "there are no critics in this run"
        return _apply(self.critic, params, tokens, *_whole(segments))


def in_compute_dtype(params: Params, dtype: jnp.dtype) -> Params:
    """The parameters that matrix products and look-ups read, in the dtype that they read them in.

    Done once, it spares a cast (and, of float32, twice the traffic between devices) at every use;
    no result changes. Norm scales and value heads compute in float32 and stay.
    """

    def cast(path, x):
        return x if path[-1].key in ("scale", "value_kernel", "value_bias") else x.astype(dtype)

    return jax.tree_util.tree_map_with_path(cast, params)


def _whole(segments: Segments) -> tuple[Int[Array, "B T"], Int[Array, "B T"]]:
    """Positions and segments of whole sequences, as the decoder takes them."""
    segments = segments.astype(jnp.int32)
    return positions_of(segments), segments


def _apply(module: nn.Module, params: Params, *inputs: Any) -> Any:
    # `Any`: linen's own type also allows for mutated variables, of which we have none.
    return module.apply({"params": params}, *inputs)


def init_actor(actor: Actor, key: PRNGKeyArray) -> Params:
    """Random parameters with their axis names (`nn.LogicallyPartitioned` boxes)."""
    return actor.init(key, *_example())["params"]


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
    )(critic.config, critic.dtype, critic.remat)
    return stack.init(key, *_example())["params"]


def _example() -> tuple[jax.Array, jax.Array, jax.Array]:
    tokens = jnp.zeros((1, 1), jnp.int32)
    return tokens, tokens, jnp.ones((1, 1), jnp.int32)
