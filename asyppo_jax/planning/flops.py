"""FLOPs and memory traffic of every phase by formula: a lower bound on what the method costs.

Only matrix products are counted, 2 · M · N · K FLOPs each, as is common. A token of a decoder costs
two FLOPs per parameter of the layers and, in attention, 4 · H · d per attended key.
"""

from dataclasses import dataclass, replace

import jax.numpy as jnp

from asyppo_jax.config import Config
from asyppo_jax.models.actor_critic import Actor, Critic, Networks
from asyppo_jax.models.config import ModelConfig

BEFORE_UPDATES = ("reshard", "prefill", "decode")


@dataclass(frozen=True)
class Cost:
    """FLOPs and bytes of one phase in one step, summed over all devices."""

    flops: float
    bytes: float  # read from and written to device memory; each parameter once per pass


def layer_params(config: ModelConfig) -> int:
    """Number of parameters that multiply a token: layers without embedding, norms and biases."""
    attention = (
        config.embed_dim * config.head_dim * (2 * config.num_heads + 2 * config.num_kv_heads)
    )
    return config.num_layers * (attention + 3 * config.embed_dim * config.mlp_dim)


def forward_flops(config: ModelConfig, tokens: int, keys: float) -> float:
    """FLOPs of the layers on `tokens` tokens that attend to `keys` keys each on average."""
    return tokens * (2 * layer_params(config) + attention_flops(config, keys))


def attention_flops(config: ModelConfig, keys: float) -> float:
    """FLOPs of QK^T and of the weighted sum, for one token that attends to `keys` keys."""
    return 4 * config.num_layers * config.num_heads * config.head_dim * keys


def head_flops(config: ModelConfig, tokens: int) -> float:
    """FLOPs of the output head (vocabulary logits) on `tokens` tokens."""
    return 2.0 * tokens * config.embed_dim * config.vocab_size


def attended_keys(length: int, attention: str) -> float:
    """Keys per token for which scores are computed: splash skips masked keys, XLA does not."""
    return length / 2 if attention == "splash" else float(length)


def passes(remat: str) -> int:
    """How often a gradient reads the weights: forward, backward (2), and to compute again."""
    return 3 if remat in ("none", "dots") else 4


def stored_width(config: ModelConfig, remat: str) -> int:
    """Numbers per token that a layer with remat other than "none" stores for the backward pass."""
    heads, kv_heads = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    width = config.embed_dim
    if remat != "full":  # queries, keys, values, the attention's output and its product
        width += 2 * heads + 2 * kv_heads + config.embed_dim
    return width + {"attention_gate": 1, "dots": 2}.get(remat, 0) * config.mlp_dim


def gradient_flops(network: Actor | Critic, tokens: int, keys: float) -> float:
    """FLOPs of a forward and a backward pass, with what `remat` computes again.

    That is never a layer's last product, and never attention by splash if its output is stored.
    """
    c, remat = network.config, network.remat
    flops = 3 * forward_flops(c, tokens, keys)
    mlp_product = 2.0 * tokens * c.num_layers * c.mlp_dim * c.embed_dim
    if remat == "full":
        return flops + forward_flops(c, tokens, keys) - mlp_product
    if remat != "none" and network.attention != "splash":
        flops += tokens * attention_flops(c, keys)
    return flops + {"attention": 2, "attention_gate": 1}.get(remat, 0) * mlp_product


@dataclass(frozen=True)
class Sizes:
    """Batch sizes and lengths of a step in the worst case: every completion has maximum length."""

    num_prompts: int
    batch: int
    slots: int  # sequences decoded at a time
    prompt: int
    completion: int
    actor_updates: int  # gradients of the actor per step
    critic_updates: int  # gradients of each critic per step
    data: int  # size of the mesh axis `data`; each of its shards reads all parameters
    rows_per_prompt: int = 1  # completions that share one pass over their prompt
    reference: int = 0  # tokens of the reference answer that critics read before the prompt

    @property
    def length(self) -> int:
        """Tokens per sequence."""
        return self.prompt + self.completion

    @property
    def tokens(self) -> int:
        """Tokens in one pass over all sequences."""
        return self.batch * self.completion + self.batch // self.rows_per_prompt * self.prompt


def critic_sizes(sizes: Sizes) -> Sizes:
    """The sizes of what the critics compute: their prompts contain the reference answers."""
    return replace(sizes, prompt=sizes.reference + sizes.prompt)


def sizes_of(config: Config, data: int = 1) -> Sizes:
    """The batch sizes and lengths of a config, on a mesh with `data` shards."""
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
        reference=config.reference_length,
    )


def phase_costs(config: Config, networks: Networks, data: int = 1) -> dict[str, Cost]:
    """Costs of the phases of `phases_of(config)`; "step" is the sum of those after sampling.

    Each of the `data` shards reads all parameters, for its own sequences.
    """
    sizes = sizes_of(config, data)
    costs = {"reshard": _reshard(networks.actor)} if config.mesh.has_own("sampling_model") else {}
    costs |= {"prefill": _prefill(networks.actor, sizes), "decode": _decode(networks.actor, sizes)}
    if networks.critic is not None:
        costs["values"] = _values(config, networks.critic, critic_sizes(sizes))
        costs["critics"] = _critics(config, networks.critic, critic_sizes(sizes))
    if config.algorithm.kl_coef:
        costs["reference"] = _reference(config, networks.actor, sizes)
    costs["actor"] = _actor(config, networks.actor, sizes)
    updates = [cost for phase, cost in costs.items() if phase not in BEFORE_UPDATES]
    costs["step"] = Cost(sum(c.flops for c in updates), sum(c.bytes for c in updates))
    return costs


def _param_bytes(module: Actor | Critic) -> float:
    """Bytes of the parameters in the compute dtype, as the matrix products read them."""
    c = module.config
    has_head = isinstance(module, Actor) and not c.tie_embeddings
    head = c.embed_dim * c.vocab_size if has_head else 0
    return float(c.num_params + head) * jnp.dtype(module.dtype).itemsize


def _reshard(actor: Actor) -> Cost:
    """The actor's parameters are read in float32 and written in the compute dtype."""
    itemsize = jnp.dtype(actor.dtype).itemsize
    return Cost(0.0, _param_bytes(actor) / itemsize * (4 + itemsize))


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
    # Slots are refilled at once, so sequences of maximum length take this many rounds of all slots.
    waves = -(-sizes.batch // sizes.slots)
    tokens = sizes.batch * steps
    flops = forward_flops(c, tokens, float(sizes.length)) + head_flops(c, tokens)
    # Every decoding step reads all parameters once, and each sequence its KV cache so far.
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
    # If each critic trains on 1/K of the sequences, an epoch of all critics is one pass over all.
    epochs, count = config.algorithm.critic_epochs, config.algorithm.num_critics
    passes_per_epoch = count * config.critic_sizes.responses // sizes.batch
    keys = attended_keys(sizes.length, critic.attention)
    tokens = epochs * passes_per_epoch * sizes.tokens
    flops = gradient_flops(critic, tokens, keys)
    microbatch = count * config.batching.critic_microbatch(count)  # over all critics
    microbatches = epochs * passes_per_epoch * sizes.batch // microbatch
    moved = microbatches * passes(critic.remat) * sizes.data * _param_bytes(critic)
    moved += sizes.critic_updates * _optimizer_bytes(critic)
    return Cost(flops, count * moved)


def _reference(config: Config, actor: Actor, sizes: Sizes) -> Cost:
    keys = attended_keys(sizes.length, actor.attention)
    flops = forward_flops(actor.config, sizes.tokens, keys)
    flops += head_flops(actor.config, sizes.batch * sizes.completion)
    microbatches = sizes.batch // config.batching.microbatch_size
    return Cost(flops, microbatches * sizes.data * _param_bytes(actor))


def _actor(config: Config, actor: Actor, sizes: Sizes) -> Cost:
    epochs = config.algorithm.actor_epochs
    sequences = epochs * sizes.batch
    keys = attended_keys(sizes.length, actor.attention)
    layers = gradient_flops(actor, epochs * sizes.tokens, keys)
    head = head_flops(actor.config, sequences * sizes.completion)
    # With several chunks, the backward pass recomputes the logits of the head; a single chunk is
    # saved. If each packed sequence has its own prompt, the chunks cover prompt positions too.
    batching = config.batching
    prompts_in_rows = batching.packing and batching.rows_per_prompt == 1
    scored_length = sizes.length - 1 if prompts_in_rows else sizes.completion
    flops = layers + (3 if batching.logits_chunk >= scored_length else 4) * head
    if config.algorithm.old_log_probs == "recompute":
        flops += forward_flops(actor.config, sizes.tokens, keys) + head / epochs
    microbatches = sequences // config.batching.microbatch_size
    moved = microbatches * passes(actor.remat) * sizes.data * _param_bytes(actor)
    return Cost(flops, moved + sizes.actor_updates * _optimizer_bytes(actor))


def _optimizer_bytes(module: Actor | Critic) -> float:
    """Bytes per update in float32: all four arrays are read, all but the gradients written."""
    # The arrays: parameters, two moments, gradients.
    return _param_bytes(module) / jnp.dtype(module.dtype).itemsize * 4 * (4 + 3)
