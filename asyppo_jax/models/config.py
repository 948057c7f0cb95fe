"""The architecture of a decoder, and its conversion from and to a Hugging Face config.json."""

from dataclasses import dataclass
from typing import Any

from asyppo_jax.config.errors import ModelError as ModelError


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
    max_positions: int | None = None  # of the tokens that it was trained on; None: not known

    @property
    def num_params(self) -> int:
        """Number of parameters with the embedding, but without a separate head."""
        attention = self.embed_dim * self.head_dim * (2 * self.num_heads + 2 * self.num_kv_heads)
        norms = 2 * self.embed_dim + (2 * self.head_dim if self.qk_norm else 0)
        bias = self.head_dim * (self.num_heads + 2 * self.num_kv_heads)
        layer = attention + 3 * self.embed_dim * self.mlp_dim + norms
        layer += bias if self.attention_bias else 0
        return self.num_layers * layer + (self.vocab_size + 1) * self.embed_dim


def from_huggingface(values: Any, where: str) -> ModelConfig:
    """The architecture in the dict of a config.json; `where` names the file in errors.

    A missing field has the default of transformers 5.

    Raises:
        ModelError: an unsupported architecture or feature, a missing field, or one that has no
            meaning.
    """
    if not isinstance(values, dict):
        raise ModelError(f"{where} holds a {type(values).__name__}, not an object; replace it")
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
    sizes = {name: read_size(values[name], name, where) for name in _SIZES}
    tied = values.get("tie_word_embeddings", False)
    if not isinstance(tied, bool):
        raise ModelError(f"{where}: tie_word_embeddings is {tied!r}; it must be true or false")
    positions = values.get("max_position_embeddings")
    config = ModelConfig(
        model_type=model_type,
        vocab_size=sizes["vocab_size"],
        embed_dim=sizes["hidden_size"],
        num_layers=sizes["num_hidden_layers"],
        num_heads=sizes["num_attention_heads"],
        num_kv_heads=_num_kv_heads(values, where),
        head_dim=_head_dim(values, where),
        mlp_dim=sizes["intermediate_size"],
        norm_eps=read_number(values["rms_norm_eps"], "rms_norm_eps", where, 0, 1),
        rope_theta=rope_theta,
        rope_scaling=rope_scaling,
        tie_embeddings=tied,
        qk_norm=model_type == "qwen3",
        attention_bias=model_type == "qwen2",
        max_positions=None
        if positions is None
        else read_size(positions, "max_position_embeddings", where),
    )
    check_heads(config, where)
    return config


_SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
)
_REQUIRED = (*_SIZES, "rms_norm_eps")
_LARGEST = 10**8


def read_size(value: Any, name: str, where: str) -> int:
    """A size of an architecture; raises `ModelError` if it is none."""
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _LARGEST:
        raise ModelError(
            f"{where}: {name} is {_short(value)}; it must be a whole number in [1, 10^8]"
        )
    return value


def read_number(value: Any, name: str, where: str, above: int | float, most: int | float) -> float:
    """A number of an architecture in (above, most]; raises `ModelError` if it is none."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not above < value <= most:
        raise ModelError(
            f"{where}: {name} is {_short(value)}; it must be a number in ({above:g}, {most:g}]"
        )
    return float(value)


def _short(value: Any) -> str:
    return f"{value!r:.60}"


def check_heads(config: ModelConfig, where: str) -> None:
    """Raises `ModelError` if heads cannot share keys, or have no pairs of dimensions to rotate."""
    if config.num_heads % config.num_kv_heads:
        raise ModelError(
            f"{where}: {config.num_heads} attention heads cannot share {config.num_kv_heads} heads "
            "of keys and values evenly; check num_attention_heads and num_key_value_heads"
        )
    if config.head_dim % 2:
        raise ModelError(
            f"{where}: head_dim is {config.head_dim}, but rotary embeddings need an even number"
        )


def _num_kv_heads(values: dict[str, Any], where: str) -> int:
    default = None if values["model_type"] == "llama" else 32
    count = values.get("num_key_value_heads", default)
    name = "num_attention_heads" if count is None else "num_key_value_heads"
    return read_size(values[name] if count is None else count, name, where)


def _head_dim(values: dict[str, Any], where: str) -> int:
    size = values.get("head_dim", 128 if values["model_type"] == "qwen3" else None)
    if size is not None:
        return read_size(size, "head_dim", where)
    embed, heads = values["hidden_size"], values["num_attention_heads"]
    if embed % heads:
        raise ModelError(
            f"{where}: num_attention_heads is {heads}, which does not divide hidden_size = {embed}"
        )
    return embed // heads


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
    if quantization := values.get("quantization_config"):
        method = quantization.get("quant_method") if isinstance(quantization, dict) else None
        raise ModelError(
            f"{where} has a quantization_config{f' ({method})' if method else ''}; quantised "
            "weights are not supported, use the model's bfloat16 or float32 weights"
        )
    kinds = values.get("layer_types") or []
    if not isinstance(kinds, list) or any(kind != "full_attention" for kind in kinds):
        raise ModelError(
            f"{where}: layer_types has other layers than 'full_attention', which are not supported"
        )


def _read_rope(values: dict[str, Any], where: str) -> tuple[float, RopeScaling | None]:
    # transformers 5 writes rope_parameters; older versions write rope_theta and rope_scaling. Where
    # both are, transformers takes rope_scaling alone.
    name = "rope_scaling" if values.get("rope_scaling") else "rope_parameters"
    rope = values.get(name) or {}
    if not isinstance(rope, dict):
        raise ModelError(f"{where}: {name} is {_short(rope)}, not an object")
    theta = rope.get("rope_theta", values.get("rope_theta", 10000.0))
    theta = read_number(theta, "rope_theta", where, 0, 1e12)
    fraction = rope.get("partial_rotary_factor", values.get("partial_rotary_factor"))
    if fraction not in (None, 1):
        raise ModelError(f"{where}: partial_rotary_factor is {fraction!r}; only 1 is supported")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return theta, None
    if kind != "llama3":
        raise ModelError(
            f"{where}: rope_type {kind!r} is not supported; only 'default' and 'llama3' are"
        )
    trained = rope.get("original_max_position_embeddings", values.get("max_position_embeddings"))
    trained = values.get("original_max_position_embeddings", trained)
    factors = {
        field: read_number(rope.get(field), f"{name}.{field}", where, 0, 1e6)
        for field in ("factor", "low_freq_factor", "high_freq_factor")
    }
    if factors["low_freq_factor"] >= factors["high_freq_factor"]:
        raise ModelError(
            f"{where}: {name}.low_freq_factor is {factors['low_freq_factor']}; it must be below "
            f"high_freq_factor = {factors['high_freq_factor']}"
        )
    trained = read_size(trained, f"{name}.original_max_position_embeddings", where)
    return theta, RopeScaling(**factors, original_max_position=trained)


def beyond_positions(config: ModelConfig, length: int, name: str) -> str:
    """A sentence if `length` tokens are more than a model was trained on, or ""."""
    if config.max_positions is None or length <= config.max_positions:
        return ""
    return (
        f"sequences of up to {length:,} tokens (prompt and answer) are longer than the "
        f"max_position_embeddings = {config.max_positions:,} of the {name}, which was not trained "
        "on more; shorten the prompts or the answers, or take a model for longer texts"
    )


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
    positions = {"max_position_embeddings": config.max_positions} if config.max_positions else {}
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
        **positions,
    }
