"""The least work of each phase by formula, for the true length of each sequence, and its time.

A matrix product counts 2 · M · N · K FLOPs. Attention is causal: token t sees t keys. The output
head is applied to completion tokens only, and nothing is computed twice. Memory traffic of a
decoding step is what it must read: the parameters once for all rows, and each row's keys and values
so far.
"""

from dataclasses import dataclass

import jax.numpy as jnp

from asyppo_jax.models.config import ModelConfig
from asyppo_jax.planning.flops import forward_flops, head_flops
from experiments.benchmark.setting import Setting


@dataclass(frozen=True)
class Work:
    """FLOPs and memory traffic of one phase."""

    flops: float
    bytes: float

    def seconds(self, gflops: float, gigabytes: float) -> float:
        """The least time: that of products (10⁹ FLOP/s) or of reads (10⁹ bytes/s), the longer one.

        This assumes that products and reads overlap perfectly, which no program reaches.
        """
        return max(self.flops / (gflops * 1e9), self.bytes / (gigabytes * 1e9))


def causal_flops(config: ModelConfig, length: int, cached: int = 0) -> float:
    """FLOPs of the layers for `length` tokens after `cached` ones, with causal attention."""
    return forward_flops(config, length, cached + (length + 1) / 2)


def prefill_work(config: ModelConfig, setting: Setting) -> Work:
    """Each prompt once per group, and the logits of its last token."""
    prompts = setting.sequences // setting.group_size
    flops = causal_flops(config, setting.prompt) + head_flops(config, 1)
    return Work(prompts * flops, parameter_bytes(config, setting.dtype))


def decode_work(config: ModelConfig, setting: Setting, *, shared: bool = True) -> Work:
    """Decoding of all completion tokens after the first, which the prefill gives.

    A row's last token is not fed back. Each row reads the keys and values of its own tokens. The
    keys and values of a prompt are read once per group if `shared`, else once per row, as the
    kernels do.
    """
    lengths = setting.lengths
    flops = sum(
        causal_flops(config, n - 1, setting.prompt) + head_flops(config, n - 1) for n in lengths
    )
    slots = setting.slots or setting.sequences
    num_steps = max(max(lengths) - 1, -(-sum(n - 1 for n in lengths) // slots))
    completion_tokens = sum((n - 1) * n / 2 for n in lengths)
    prompt_tokens = sum((n - 1) * setting.prompt for n in lengths)
    prompt_tokens /= setting.group_size if shared else 1
    bytes_per_token = 2 * config.num_layers * config.num_kv_heads * config.head_dim
    bytes_per_token *= jnp.dtype(setting.dtype).itemsize
    cache_bytes = (completion_tokens + prompt_tokens) * bytes_per_token
    return Work(flops, num_steps * parameter_bytes(config, setting.dtype) + cache_bytes)


def values_work(critic: ModelConfig, setting: Setting) -> Work:
    """The forward pass of each critic over all sequences."""
    flops = sum(causal_flops(critic, setting.prompt + n) for n in setting.lengths)
    parameters = parameter_bytes(critic, setting.dtype)
    return Work(setting.num_critics * flops, setting.num_critics * parameters)


def critics_work(critic: ModelConfig, setting: Setting) -> Work:
    """Forward and backward pass of one critic per sequence, and Adam's memory traffic."""
    flops = sum(causal_flops(critic, setting.prompt + n) for n in setting.lengths)
    return Work(3 * flops, setting.num_critics * optimizer_bytes(critic))


def actor_work(actor: ModelConfig, setting: Setting) -> Work:
    """Forward and backward pass of the layers and the output head, and Adam's memory traffic."""
    layers = sum(causal_flops(actor, setting.prompt + n) for n in setting.lengths)
    head = head_flops(actor, sum(setting.lengths))
    return Work(3 * (layers + head), optimizer_bytes(actor))


def parameter_bytes(config: ModelConfig, dtype: str = "float32") -> float:
    return float(jnp.dtype(dtype).itemsize * config.num_params)


def optimizer_bytes(config: ModelConfig) -> float:
    """Adam's float32 traffic: read gradients, parameters, two moments; write all but gradients."""
    return 7 * parameter_bytes(config)
