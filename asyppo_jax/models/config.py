"""The architecture of a decoder, and its conversion from and to a Hugging Face config.json."""

from dataclasses import dataclass
from typing import Any

from asyppo_jax.config import UserError


class ModelError(UserError, ValueError):
    """A model cannot be used; the message names the file or field and how to fix it."""


@dataclass(frozen=True)
class RopeScaling:
    """Llama-3's scaling of low rotary frequencies ("rope_type": "llama3")."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position: int


@dataclass(frozen=True)
class ModelConfig:
    """The architecture: sizes, and switches for the differences of Qwen3, Qwen2 and Llama."""

    model_type: str  # "qwen3", "qwen2" or "llama"
    vocab_size: int  # V
    embed_dim: int  # D
    num_layers: int  # L
    num_heads: int  # H
    num_kv_heads: int
    head_dim: int
    mlp_dim: int  # F
    norm_eps: float
    rope_theta: float
    rope_scaling: RopeScaling | None
    tie_embeddings: bool
    qk_norm: bool  # Qwen3
    attention_bias: bool  # Qwen2: on q, k and v

    @property
    def num_params(self) -> int:
        """Number of parameters with the embedding, but without a separate head."""
        attention = self.embed_dim * self.head_dim * (2 * self.num_heads + 2 * self.num_kv_heads)
        norms = 2 * self.embed_dim + (2 * self.head_dim if self.qk_norm else 0)
        bias = self.head_dim * (self.num_heads + 2 * self.num_kv_heads)
        layer = attention + 3 * self.embed_dim * self.mlp_dim + norms
        layer += bias if self.attention_bias else 0
        return self.num_layers * layer + (self.vocab_size + 1) * self.embed_dim


def from_huggingface(values: dict[str, Any], where: str) -> ModelConfig:
    """The architecture in the dict of a config.json; `where` names the file in errors.

    Raises:
        ModelError: an unsupported architecture or feature, or a missing field.
    """
    model_type = values.get("model_type")
    if model_type not in ("qwen3", "qwen2", "llama"):
        raise ModelError(
            f"{where}: model_type {model_type!r} is not supported; "
            "use a 'qwen3', 'qwen2' or 'llama' model"
        )
    missing = [name for name in _REQUIRED if name not in values]
    if missing:
        raise ModelError(
            f"{where} has no field {missing[0]!r}; is it the config.json of a decoder?"
        )
    _refuse_unsupported(values, where)
    rope_theta, rope_scaling = _read_rope(values, where)
    num_heads = values["num_attention_heads"]
    return ModelConfig(
        model_type=model_type,
        vocab_size=values["vocab_size"],
        embed_dim=values["hidden_size"],
        num_layers=values["num_hidden_layers"],
        num_heads=num_heads,
        num_kv_heads=values.get("num_key_value_heads") or num_heads,
        head_dim=values.get("head_dim") or values["hidden_size"] // num_heads,
        mlp_dim=values["intermediate_size"],
        norm_eps=values["rms_norm_eps"],
        rope_theta=rope_theta,
        rope_scaling=rope_scaling,
        tie_embeddings=bool(values.get("tie_word_embeddings", False)),
        qk_norm=model_type == "qwen3",
        attention_bias=model_type == "qwen2",
    )


_REQUIRED = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "rms_norm_eps",
)


def _refuse_unsupported(values: dict[str, Any], where: str) -> None:
    refused = {
        "use_sliding_window": "sliding-window attention",
        "mlp_bias": "biases in the MLP",
    }
    if values["model_type"] != "qwen2":
        refused["attention_bias"] = f"attention biases in {values['model_type']}"
    for name, what in refused.items():
        if values.get(name):
            raise ModelError(f"{where}: {name} is true; {what} are not supported")
    if values.get("hidden_act", "silu") != "silu":
        raise ModelError(
            f"{where}: hidden_act is {values['hidden_act']!r}; only 'silu' is supported"
        )


def _read_rope(values: dict[str, Any], where: str) -> tuple[float, RopeScaling | None]:
    # transformers 5 writes rope_parameters; older versions write rope_theta and rope_scaling.
    rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
    theta = rope.get("rope_theta", values.get("rope_theta", 10000.0))
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return float(theta), None
    if kind != "llama3":
        raise ModelError(
            f"{where}: rope_type {kind!r} is not supported; only 'default' and 'llama3' are"
        )
    scaling = RopeScaling(
        factor=rope["factor"],
        low_freq_factor=rope["low_freq_factor"],
        high_freq_factor=rope["high_freq_factor"],
        original_max_position=rope["original_max_position_embeddings"],
    )
    return float(theta), scaling


def to_huggingface(config: ModelConfig) -> dict[str, Any]:
    """The dict of a config.json from which `from_huggingface` makes the same `ModelConfig`."""
    rope: dict[str, Any] = {"rope_theta": config.rope_theta, "rope_type": "default"}
    if config.rope_scaling is not None:
        scaling = config.rope_scaling
        rope |= {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_max_position,
        }
    architectures = {"qwen3": "Qwen3ForCausalLM", "qwen2": "Qwen2ForCausalLM"}
    return {
        "architectures": [architectures.get(config.model_type, "LlamaForCausalLM")],
        "model_type": config.model_type,
        "vocab_size": config.vocab_size,
        "hidden_size": config.embed_dim,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.mlp_dim,
        "rms_norm_eps": config.norm_eps,
        "rope_parameters": rope,
        "tie_word_embeddings": config.tie_embeddings,
        "hidden_act": "silu",
    }
