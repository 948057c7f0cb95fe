"""The actor and the stack of critics, as pure functions of their parameters.

Everything here is `init`/`apply` inside; outside this folder parameters are nested dicts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, TypeVar, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from asyppo_jax.models.attention.decode_attention import BY_LAYER, IN_ONE, Cache, Form
from asyppo_jax.models.attention.decode_blocks import SharedPrompts
from asyppo_jax.models.attention.segments import Segments, positions_of
from asyppo_jax.models.attention.self_attention import AttentionBackend
from asyppo_jax.models.config import ModelConfig
from asyppo_jax.models.decoder import Decoder
from asyppo_jax.models.layers import Block, RMSNorm, param, with_outputs_first
from asyppo_jax.models.rotary import rotation_at
from asyppo_jax.ops.products import few_rows_dense
from asyppo_jax.runtime.sharding import constrain
from asyppo_jax.types import Params

_F = TypeVar("_F", bound=Callable[..., Any])


class Actor(nn.Module):
    """A decoder with a language-model head, tied to the embedding or its own."""

    config: ModelConfig
    dtype: jnp.dtype = jnp.dtype("float32")
    remat: str = "none"
    attention: AttentionBackend = "xla"
    unroll: int = 1
    decode: Form = "blocks"

    @nn.compact
    def __call__(self, tokens, positions, segments, keep=False):
        c = self.config
        if not c.tie_embeddings:
            param(self, "lm_head", ("embed", "vocab"), (c.embed_dim, c.vocab_size))
        unroll = 1 if keep else self.unroll  # what is kept lies in one array all the same
        shape = c, self.dtype, self.remat, self.attention, unroll
        decoder = Decoder(*shape, keep, name="decoder")
        return decoder(tokens, positions, segments)


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
    attention: AttentionBackend = "xla"
    unroll: int = 1

    @nn.compact
    def __call__(self, tokens, positions, segments):
        shape = self.config, self.dtype, self.remat, self.attention, self.unroll
        decoder = Decoder(*shape, name="decoder")
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

    def actor_prefill(
        self, params: Params, tokens: Int[Array, "B T"], lengths: Int[Array, " B"]
    ) -> tuple[Float[Array, "B V"], tuple[Float[Array, "L B T KV d"], Float[Array, "L B T KV d"]]]:
        """The logits after each row's first `lengths` tokens, float32, and all keys and values."""
        mask = jnp.arange(tokens.shape[1])[None] < lengths[:, None]
        hidden, kept = _apply(self.actor, params, tokens, *_whole(mask), True)
        last = jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], axis=1)
        return self._logits(params, last), kept

    def step_params(self, params: Params, length: int) -> Params:
        """The parameters as `actor_step` takes them for rows of up to `length` tokens.

        To be done before a loop: inside it, every layer would compute the turns of its tokens anew,
        and XLA's CPU backend copy every layer's slice of the stacked arrays for every token.
        Where layers have caches of their own, so have they parameters; with "blocks" all kernels
        lie with their outputs first (`few_rows_dense`), and "head" is one of them.
        """
        decoder = dict(params["decoder"])
        decoder["rotation"] = rotation_at(jnp.arange(length)[None], self.actor.config)
        if self.actor.decode in BY_LAYER:
            stacked, count = decoder["layers"], self.actor.config.num_layers
            layers = (jax.tree.map(lambda p: p[i], stacked) for i in range(count))  # noqa: B023
            decoder["layers"] = tuple(layers)
        if self.actor.decode != "blocks":
            return params | {"decoder": decoder}
        decoder["layers"] = tuple(with_outputs_first(own) for own in decoder["layers"])
        head = self.actor_head(params).T.astype(self.actor.dtype)
        return params | {"decoder": decoder, "head": head}

    def actor_step(
        self,
        params: Params,
        tokens: Int[Array, " R"],
        lengths: Int[Array, " R"],
        longest: Int[Array, ""],
        cache: Cache,
        prompts: SharedPrompts | None = None,
    ) -> tuple[Float[Array, "R V"], Cache]:
        """The logits after one more token a row, float32, and the cache that holds it.

        `params` are `step_params`. `lengths` counts a row's tokens so far, `longest` is the largest
        number of them that a cache holds. With `prompts` ("blocks" alone) these hold a row's first
        tokens, the cache those that follow.
        """
        actor, decoder = self.actor, params["decoder"]
        outputs_first = actor.decode == "blocks"
        block = Block(actor.config, actor.attention, outputs_first=outputs_first)
        x = jnp.take(decoder["embedding"], tokens[:, None], axis=0).astype(actor.dtype)
        x = constrain(x, ("batch", None, None))
        rotation = jax.tree.map(lambda x: jnp.take(x[0], lengths[:, None], 0), decoder["rotation"])
        held = lengths if prompts is None else lengths - prompts.seating.starts

        def one_layer(x, params, attend, *cache):
            def mix(*of_token):
                return attend(*cache, *of_token, held, longest)

            return _apply(block, params, x, rotation, None, mix)

        if actor.decode in BY_LAYER:
            attend: Any = BY_LAYER[actor.decode]
            layers = []
            for i, (own, kept) in enumerate(zip(decoder["layers"], cache, strict=True)):
                see = attend
                if prompts is not None:
                    see = partial(attend, prompts=(prompts.layers[i], prompts.seating))
                x, kept = one_layer(x, own, see, kept)
                layers.append(kept)
            cache = tuple(layers)
        else:
            attend = IN_ONE[actor.decode]

            def loop(carry, own_and_layer):
                (x, cache), (own, layer) = carry, own_and_layer
                return one_layer(x, own, attend, cache, layer), None

            index = jnp.arange(actor.config.num_layers, dtype=jnp.int32)
            (x, cache), _ = jax.lax.scan(loop, (x, cache), (decoder["layers"], index))
        x = _apply(RMSNorm(actor.config.norm_eps), decoder["final_norm"], x)
        if outputs_first:
            return few_rows_dense(x[:, 0], params["head"], jnp.float32), cache
        return self._logits(params, x), cache

    def _logits(self, params: Params, hidden: Float[Array, "B 1 D"]) -> Float[Array, "B V"]:
        head = self.actor_head(params).astype(hidden.dtype)
        return jnp.einsum("bd,dv->bv", hidden[:, 0], head, preferred_element_type=jnp.float32)

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


def _whole(segments: Segments) -> tuple[Int[Array, "B T"], Segments]:
    """Positions and segments of whole sequences, as the decoder takes them."""
    segments = jax.tree.map(lambda x: x.astype(jnp.int32), segments)
    return positions_of(segments), segments


def _apply(module: nn.Module, params: Params, *inputs: Any) -> Any:
    # `Any`: linen's own type also allows for mutated variables, of which we have none.
    return module.apply({"params": params}, *inputs)


def _remembered(function: _F) -> _F:
    """`lru_cache`, which by its type would refuse linen modules: they do have a hash."""
    return cast("_F", lru_cache(maxsize=16)(function))


def init_actor(actor: Actor, key: PRNGKeyArray) -> Params:
    """Random parameters with their axis names (`nn.LogicallyPartitioned` boxes).

    In the form that compiles soonest: the parameters are the same in all.
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
    )(critic.config, critic.dtype, critic.remat)
    return stack.init(key, *_example())["params"]


@_remembered
def critic_shapes(critic: Critic, num_critics: int) -> Params:
    """The shapes of `init_critics`, boxed; nothing is computed."""
    return jax.eval_shape(lambda: init_critics(critic, jax.random.key(0), num_critics))


def _example() -> tuple[jax.Array, jax.Array, jax.Array]:
    tokens = jnp.zeros((1, 1), jnp.int32)
    return tokens, tokens, jnp.ones((1, 1), jnp.int32)
