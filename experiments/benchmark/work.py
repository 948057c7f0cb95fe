"""The least work of a phase, by formula, at every sequence's own length; and the limit it sets.

Matrix products count 2 · M · N · K; attention is causal, so that token t sees t keys; the head
multiplies completion tokens alone, and nothing is computed twice. Of memory, what a decoding turn
must read: the parameters once for all rows, and every row's keys and values so far.
"""

from dataclasses import dataclass

import jax.numpy as jnp

from asyppo_jax.models.config import ModelConfig
from asyppo_jax.planning.flops import forward_flops, head_flops
from experiments.benchmark.setting import Setting


@dataclass(frozen=True)
class Work:
    """Of one phase."""

    flops: float
    bytes: float

    def seconds(self, gflops: float, gigabytes: float) -> float:
        """The limit: products at `gflops` and reads at `gigabytes` a second, whichever is longer.

        As if the two went on at once, which no program manages.
        """
        return max(self.flops / (gflops * 1e9), self.bytes / (gigabytes * 1e9))


def causal_flops(config: ModelConfig, length: int, cached: int = 0) -> float:
    """The trunk on `length` tokens behind `cached` ones; a token sees itself and all before it."""
    return forward_flops(config, length, cached + (length + 1) / 2)


def prefill_work(config: ModelConfig, setting: Setting) -> Work:
    """Every prompt once for its group, and the logits of its last token."""
    prompts = setting.sequences // setting.group_size
    flops = causal_flops(config, setting.prompt) + head_flops(config, 1)
    return Work(prompts * flops, parameter_bytes(config, setting.dtype))


def decode_work(config: ModelConfig, setting: Setting, *, shared: bool = True) -> Work:
    """All tokens after the first, which the prefill gives.

    The last token of a row is never fed in. The group's rows share the keys of their prompt, which
    a turn need read only once a group: counted are reads by every row for its own tokens, and the
    prompts' divided by the group; without `shared`, whole, as kernels read them.
    """
    lengths = setting.lengths
    flops = sum(
        causal_flops(config, n - 1, setting.prompt) + head_flops(config, n - 1) for n in lengths
    )
    slots = setting.slots or setting.sequences
    turns = max(max(lengths) - 1, -(-sum(n - 1 for n in lengths) // slots))
    own = sum((n - 1) * n / 2 for n in lengths)
    prompts = sum((n - 1) * setting.prompt for n in lengths)
    prompts /= setting.group_size if shared else 1
    keys = 2 * config.num_layers * config.num_kv_heads * config.head_dim
    keys *= jnp.dtype(setting.dtype).itemsize
    return Work(flops, turns * parameter_bytes(config, setting.dtype) + (own + prompts) * keys)


def values_work(critic: ModelConfig, setting: Setting) -> Work:
    """Every critic's forward pass over every sequence."""
    flops = sum(causal_flops(critic, setting.prompt + n) for n in setting.lengths)
    parameters = parameter_bytes(critic, setting.dtype)
    return Work(setting.num_critics * flops, setting.num_critics * parameters)


def critics_work(critic: ModelConfig, setting: Setting) -> Work:
    """Forward and backward, each sequence by one critic; Adam's traffic besides."""
    flops = sum(causal_flops(critic, setting.prompt + n) for n in setting.lengths)
    return Work(3 * flops, setting.num_critics * optimizer_bytes(critic))


def actor_work(actor: ModelConfig, setting: Setting) -> Work:
    """Forward and backward of trunk and head; Adam's traffic besides."""
    trunk = sum(causal_flops(actor, setting.prompt + n) for n in setting.lengths)
    head = head_flops(actor, sum(setting.lengths))
    return Work(3 * (trunk + head), optimizer_bytes(actor))


def parameter_bytes(config: ModelConfig, dtype: str = "float32") -> float:
    return float(jnp.dtype(dtype).itemsize * config.num_params)


def optimizer_bytes(config: ModelConfig) -> float:
    """Gradients, parameters and two moments read; all but gradients written; float32 all."""
    return 7 * parameter_bytes(config)
