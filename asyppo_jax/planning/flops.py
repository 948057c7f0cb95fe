"""Arithmetic and memory traffic of every phase by formula: what the method costs at the least.

Counted are matrix products, 2 · M · N · K each, as the field does; a token of a decoder costs two
FLOPs a parameter of its layers and, in attention, 4 · H · d for every key that it sees.
"""

from dataclasses import dataclass

import jax.numpy as jnp

from asyppo_jax.config import Config
from asyppo_jax.models.actor_critic import Actor, Critic, Networks
from asyppo_jax.models.config import ModelConfig


@dataclass(frozen=True)
class Cost:
    """Of one phase of one step, over all devices."""

    flops: float
    bytes: float  # read from and written to device memory, each parameter once a pass


def layer_params(config: ModelConfig) -> int:
    """Parameters that multiply a token: the layers without embedding, norms and biases."""
    attention = (
        config.embed_dim * config.head_dim * (2 * config.num_heads + 2 * config.num_kv_heads)
    )
    return config.num_layers * (attention + 3 * config.embed_dim * config.mlp_dim)


def forward_flops(config: ModelConfig, tokens: int, keys: float) -> float:
    """The trunk on `tokens` tokens that see `keys` keys each on average."""
    return tokens * (2 * layer_params(config) + attention_flops(config, keys))


def attention_flops(config: ModelConfig, keys: float) -> float:
    """Scores and mixture of a token that sees `keys` keys, in all layers."""
    return 4 * config.num_layers * config.num_heads * config.head_dim * keys


def head_flops(config: ModelConfig, tokens: int) -> float:
    """The vocabulary's matrix on `tokens` tokens."""
    return 2.0 * tokens * config.embed_dim * config.vocab_size


def attended_keys(length: int, attention: str) -> float:
    """Keys that a token computes scores with: splash skips what is not causal, XLA does not."""
    return length / 2 if attention == "splash" else float(length)


def passes(remat: str) -> int:
    """Forward-sized passes of one gradient: forward, two backward, and what is recomputed."""
    return 4 if remat == "full" else 3


def gradient_flops(config: ModelConfig, tokens: int, keys: float, remat: str) -> float:
    """Forward and backward; "full" recomputes all but a layer's last product, "dots" attention."""
    flops = passes(remat) * forward_flops(config, tokens, keys)
    if remat == "full":
        flops -= 2.0 * tokens * config.num_layers * config.mlp_dim * config.embed_dim
    if remat == "dots":
        flops += tokens * attention_flops(config, keys)
    return flops


@dataclass(frozen=True)
class Sizes:
    """Rows and lengths of a step; the worst case, every completion at its limit."""

    num_prompts: int
    batch: int
    slots: int  # rows decoded at one time
    prompt: int
    completion: int
    actor_updates: int  # gradients of the actor a step
    critic_updates: int  # gradients of every critic a step
    data: int  # shards of `data`, each of which reads all parameters
    rows_per_prompt: int = 1  # completions that share a pass over their prompt

    @property
    def length(self) -> int:
        """Tokens of a sequence."""
        return self.prompt + self.completion

    @property
    def tokens(self) -> int:
        """Tokens of a pass over all sequences."""
        return self.batch * self.completion + self.batch // self.rows_per_prompt * self.prompt


def sizes_of(config: Config, data: int = 1) -> Sizes:
    """The sizes that a config asks for, on a mesh of `data` shards."""
    batch = config.sampling.num_prompts * config.sampling.group_size
    algorithm, batching = config.algorithm, config.batching
    return Sizes(
        num_prompts=config.sampling.num_prompts,
        batch=batch,
        slots=min(config.sampling.slots or batch, batch // config.sampling.chunks),
        prompt=config.prompt.max_length,
        completion=config.sampling.max_completion_length,
        actor_updates=algorithm.actor_epochs * batch // batching.actor_minibatch_size,
        critic_updates=algorithm.critic_epochs * batch // batching.critic_minibatch_size,
        data=data,
        rows_per_prompt=batching.rows_per_prompt,
    )


def phase_costs(config: Config, networks: Networks, data: int = 1) -> dict[str, Cost]:
    """A step's phases: prefill, decode, values, critics, actor; "step" is the last three.

    On a mesh of `data` shards: each reads all parameters, for its own rows.
    """
    sizes = sizes_of(config, data)
    costs = {"prefill": _prefill(networks.actor, sizes), "decode": _decode(networks.actor, sizes)}
    if networks.critic is not None:
        costs["values"] = _values(config, networks.critic, sizes)
        costs["critics"] = _critics(config, networks.critic, sizes)
    costs["actor"] = _actor(config, networks.actor, sizes)
    updates = [cost for phase, cost in costs.items() if phase not in ("prefill", "decode")]
    costs["step"] = Cost(sum(c.flops for c in updates), sum(c.bytes for c in updates))
    return costs


def _param_bytes(module: Actor | Critic) -> float:
    """In the compute dtype, as the matrix products read them."""
    head = 0 if module.config.tie_embeddings else module.config.embed_dim * module.config.vocab_size
    return float(module.config.num_params + head) * jnp.dtype(module.dtype).itemsize


def _prefill(actor: Actor, sizes: Sizes) -> Cost:
    c, tokens = actor.config, sizes.num_prompts * sizes.prompt
    keys = attended_keys(sizes.prompt, actor.attention)
    flops = forward_flops(c, tokens, keys) + head_flops(c, sizes.num_prompts)
    cache = _cache_bytes(actor, sizes.num_prompts, sizes.prompt)
    return Cost(flops, sizes.data * _param_bytes(actor) + cache)


def _cache_bytes(actor: Actor, rows: int, length: int) -> float:
    c = actor.config
    width = 2 * c.num_layers * c.num_kv_heads * c.head_dim * jnp.dtype(actor.dtype).itemsize
    return float(rows * length * width)


def _decode(actor: Actor, sizes: Sizes) -> Cost:
    c, steps = actor.config, sizes.completion - 1
    # With slots refilled at once, all rows at their limit take so many turns of all slots.
    waves = -(-sizes.batch // sizes.slots)
    tokens = sizes.batch * steps
    flops = forward_flops(c, tokens, float(sizes.length)) + head_flops(c, tokens)
    # Every turn reads all parameters once, and every row its own cache so far.
    params = sizes.data * _param_bytes(actor)
    cache = _cache_bytes(actor, sizes.batch, sizes.prompt + sizes.completion // 2)
    return Cost(flops, steps * (waves * params + cache))


def _values(config: Config, critic: Critic, sizes: Sizes) -> Cost:
    count, tokens = config.algorithm.num_critics, sizes.tokens
    keys = attended_keys(sizes.length, critic.attention)
    microbatches = sizes.batch // config.batching.microbatch_size
    forward = forward_flops(critic.config, tokens, keys)
    return Cost(count * forward, count * microbatches * sizes.data * _param_bytes(critic))


def _critics(config: Config, critic: Critic, sizes: Sizes) -> Cost:
    # Each critic sees 1/K of the rows: all together cost one pass over the batch an epoch.
    epochs, count = config.algorithm.critic_epochs, config.algorithm.num_critics
    keys = attended_keys(sizes.length, critic.attention)
    tokens = epochs * sizes.tokens
    flops = gradient_flops(critic.config, tokens, keys, critic.remat)
    rows = count * config.batching.critic_microbatch(count)  # of a pass over all critics
    microbatches = epochs * sizes.batch // rows
    repeat = passes(critic.remat)
    moved = microbatches * repeat * sizes.data * _param_bytes(critic)
    moved += sizes.critic_updates * _optimizer_bytes(critic)
    return Cost(flops, count * moved)


def _actor(config: Config, actor: Actor, sizes: Sizes) -> Cost:
    epochs = config.algorithm.actor_epochs
    rows = epochs * sizes.batch
    keys = attended_keys(sizes.length, actor.attention)
    trunk = gradient_flops(actor.config, epochs * sizes.tokens, keys, actor.remat)
    head = head_flops(actor.config, rows * sizes.completion)
    repeat = passes(actor.remat)
    # Several chunks of the head are recomputed, a single one is kept. Packed sequences with their
    # own prompts leave a row's completions no place of their own.
    batching = config.batching
    own_prompts = batching.packing and batching.rows_per_prompt == 1
    spoken = sizes.length - 1 if own_prompts else sizes.completion
    flops = trunk + (3 if batching.logits_chunk >= spoken else 4) * head
    if config.algorithm.old_log_probs == "recompute":
        flops += forward_flops(actor.config, sizes.tokens, keys) + head / epochs
    microbatches = rows // config.batching.microbatch_size
    moved = microbatches * repeat * sizes.data * _param_bytes(actor)
    return Cost(flops, moved + sizes.actor_updates * _optimizer_bytes(actor))


def _optimizer_bytes(module: Actor | Critic) -> float:
    """Parameters, two moments and gradients in float32, read, and all but gradients written."""
    return _param_bytes(module) / jnp.dtype(module.dtype).itemsize * 4 * (4 + 3)
