"""The configuration: frozen dataclasses, the only place where a default is written.

A run's file in `configs/` starts from `default_config()`, an editable and locked `ConfigDict` with
these fields (an unknown name is an error), and `from_config_dict` turns the result into the frozen,
checked `Config` that the library takes. Fields tagged [P], [S], [R] or [D] are explained in
the method: [P] the paper states it, [S] a summary of it does, [R] it is ROLL's default,
[D] the paper is silent and this is our choice (the comment names the other branch).
"""

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from ml_collections import ConfigDict, config_dict

from asyppo_jax.config.checks import check_config
from asyppo_jax.config.errors import ConfigError as ConfigError


@dataclass(frozen=True)
class NetworkConfig:
    """Which weights a network starts from, and how it computes."""

    path: str = ""  # a Hugging Face directory or hub name; empty (critics only): the actor's
    architecture: str = ""  # a config.json that gives the shape in place of the path's own
    num_layers: int | None = None  # keep only the first n layers; None keeps all
    dtype: Literal["float32", "bfloat16"] = "float32"  # of activations; parameters are float32
    # What the backward pass of a layer computes again: "none" keeps all activations, "dots" keeps
    # the products with weights (not attention's), "full" keeps the layer's input alone.
    remat: Literal["none", "dots", "full"] = "full"
    # Layers in one turn of the loop over them; 0: all, so that no turn hands its activations on
    # through an array of all layers. On a GPU that is up to a fifth of an update; a deep model
    # takes several times as long to compile.
    unroll: int = 1
    # Of whole sequences. "auto": "splash" on TPU, "cudnn" on GPU, "xla" (blocks) elsewhere.
    attention: Literal["auto", "xla", "splash", "cudnn"] = "auto"
    # Of one new token to its cache (the actor's alone). "auto": "blocks" on CPU; in bfloat16 the
    # kernels "pages" on TPU (heads of a multiple of 128) and "layers" on GPU; else "dense".
    decode_attention: Literal["auto", "blocks", "dense", "pages", "layers"] = "auto"


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with a linear warm-up, behind a clip of the global gradient norm."""

    learning_rate: float = 1e-6
    warmup_steps: int = 0  # optimiser updates (not steps) until the full learning rate
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    # How the first moment is kept between updates: bfloat16 saves 2 bytes a parameter of Adam's 8.
    # The second stays float32: at b2 = 0.999 a step moves it by less than bfloat16 can tell.
    moment_dtype: Literal["float32", "bfloat16"] = "float32"


@dataclass(frozen=True)
class DataConfig:
    """Where records {problem, answer} come from."""

    source: Literal["jsonl", "parquet", "hub", "reasoning_gym", "function"] = "jsonl"
    path: str = ""  # a file, a hub name, a reasoning-gym task, or "module:function"
    split: str = "train"  # of a hub data set; given to a "function" source
    problem_field: str = "problem"
    answer_field: str = "answer"
    answer_pattern: str = (
        ""  # a regular expression whose group 1 is the answer, e.g. r"####\s*(.+)"
    )
    num_records: int | None = None  # keep the first n; how many to make, for procedural sources
    seed: int = 0  # of procedural sources


@dataclass(frozen=True)
class PromptConfig:
    """How a problem becomes prompt tokens."""

    template: str = "chat"  # "chat": the tokenizer's chat template; else text with {problem}
    system_prompt: str = (
        "Please reason step by step, and put your final answer within \\boxed{}."  # [P]
    )
    max_length: int = 512  # P, tokens; longer prompts are counted, named and left out


@dataclass(frozen=True)
class SamplingConfig:
    """How completions are drawn in the rollout."""

    num_prompts: int = 32  # N, a step
    group_size: int = 32  # G [P]
    slots: int = 0  # sequences decoded at one time; 0: all. A slot takes the next one as it ends
    # Parts of a rollout that are sampled one after the other, each scored while the next is being
    # sampled: worth it where scoring takes long. A part waits for its own longest answers.
    parts: int = 1
    max_completion_length: int = 8192  # C, tokens [P]
    temperature: float = 0.99  # [P]; 0 is greedy
    top_k: int = 0  # 0: off
    top_p: float = 0.99  # [P]; 1: off
    min_p: float = 0.0  # drop tokens of less than this share of the likeliest's probability; 0: off
    stop_tokens: tuple[str, ...] = ()  # besides the tokenizer's own end-of-sequence tokens
    stop_strings: tuple[str, ...] = ()  # a completion ends with the token that completes one


@dataclass(frozen=True)
class RewardConfig:
    """How a completion becomes a reward in [0, 1], or is called invalid."""

    function: str = "math"  # "math", "exact", or "module:function" (problem, completion, answer)
    time_limit: float = 5.0  # seconds an answer may take before its process is killed
    num_workers: int = 2


@dataclass(frozen=True)
class AlgorithmConfig:
    """AsyPPO (arXiv 2510.01656) and each choice where the paper is silent."""

    num_critics: int = 2  # K [P]; 0: no critics, advantages are normalised in the group (GRPO)
    advantage_mask_fraction: float = 0.2  # k, share of real tokens with the lowest std [P]
    entropy_mask_fraction: float = 0.2  # h, share of real tokens with the highest std [P]
    gamma: float = 1.0  # [D] 0.95 is ROLL's default
    gae_lambda: float = 1.0  # [D]
    # [D] After the update a critic has seen its own share's reward, and the std becomes "who saw
    # it"; the paper's box reads "after_update".
    values: Literal["before_update", "after_update"] = "before_update"
    # [D] A_t + mean value; equals the final reward at gamma = lambda = 1.
    returns: Literal["lambda", "monte_carlo"] = "lambda"
    # [D] Over real tokens, before the mask: the mask belongs to the surrogate.
    advantage_whitening: Literal["before_mask", "after_mask", "none"] = "before_mask"
    clip_eps_low: float = 0.2  # [D] the paper's objective is symmetric
    clip_eps_high: float = 0.2  # [D] 0.28 is common
    entropy_coef: float = 1e-3  # [D] ROLL's default is 0
    actor_epochs: int = 4  # [D] the paper's "update-to-data ratio 4"
    critic_epochs: int = 1  # [R]
    critic_warmup_steps: int = 10  # [D] critic-only steps: equal critics make the masks arbitrary
    # [D] False: all critics start from one value head, so the std is 0 until their data part them.
    distinct_value_heads: bool = True
    # [D] "joint": one clipped optimiser over the stack, which couples the critics' updates.
    critic_optimizer: Literal["per_critic", "joint"] = "per_critic"
    # "rollout": the sampler's own log-probs, whose gap is measured each step; "recompute": one
    # more forward pass of the actor before its update.
    old_log_probs: Literal["rollout", "recompute"] = "rollout"
    log_prob_gap_bound: float = 0.05  # mean |sampler - learner|, nats; beyond it the run warns


@dataclass(frozen=True)
class BatchingConfig:
    """How a rollout is cut up: a minibatch is one gradient, a microbatch one forward pass."""

    actor_minibatch_size: int = 128  # sequences
    critic_minibatch_size: int = 128  # sequences, over all critics together
    microbatch_size: int = 16  # rows: sequences unless packed
    critic_microbatch_size: int = 0  # rows of each critic; 0: its even share of microbatch_size
    # Several sequences share a row of P + C tokens, and microbatches without a sequence are left
    # out: an update costs what its real tokens cost, and its numbers change in rounding alone. It
    # saves where answers are shorter than C and a minibatch is several microbatches.
    packing: bool = False
    # Rows of C completion tokens that share one pass over their prompt, forward and backward; 1: a
    # prompt is computed with every completion. Minibatches are then of whole groups; numbers change
    # in rounding alone. It saves where prompts are long beside answers. On TPU, together with
    # `packing`, attention is XLA's own: splash knows no prompt that several completions see.
    rows_per_prompt: int = 1
    logits_chunk: int = 128  # completion positions whose logits exist at one time

    def critic_microbatch(self, num_critics: int) -> int:
        """Rows of each critic in one pass over all of them."""
        return self.critic_microbatch_size or self.microbatch_size // num_critics

    def rows_of(self, sequences: int) -> int:
        """The rows that so many sequences are laid out in, unless they are packed."""
        return sequences // self.rows_per_prompt


@dataclass(frozen=True)
class MeshConfig:
    """Devices: `data` shards batch and parameters (FSDP), `model` shards heads and mlp."""

    data: int = -1  # -1: all devices that `model` leaves
    model: int = 1
    # When parameters that lie spread over `data` are made whole there: "layer", each layer's as it
    # is computed; "minibatch", all of a network's once for all microbatches of a gradient, which
    # spares most of the traffic between devices and costs a copy in the compute dtype.
    gather: Literal["layer", "minibatch"] = "layer"
    # When devices of `data` add up their gradients: "microbatch", at each one, and every device
    # keeps its own part; "minibatch", once, until when each adds up those of its own rows, which
    # costs a copy in float32 that is whole over `data` and wants gather = "minibatch".
    reduce: Literal["microbatch", "minibatch"] = "microbatch"
    # What waits in the host's memory (`pinned_host`) while it has no part in a phase: the
    # optimisers' states, or the idle networks too. It costs two transfers of each a step, and runs
    # the phases of a step as programs of their own.
    offload: Literal["none", "optimizers", "idle"] = "none"


@dataclass(frozen=True)
class EvaluationConfig:
    """Held-out evaluation during training."""

    every: int = 10  # steps; 0: only before the first and after the last
    num_samples: int = 1  # answers per problem; accuracy is their average
    batch_size: int = 64  # problems sampled at once
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0


@dataclass(frozen=True)
class CheckpointConfig:
    every: int = 10  # steps; 0: only after the last
    keep: int = 2  # the latest n; the best by held-out accuracy is kept besides


@dataclass(frozen=True)
class LogConfig:
    tensorboard: bool = True
    wandb_project: str = ""  # empty: off
    samples_every: int = 10  # steps between printed completions; 0: never
    num_samples: int = 2
    # Steps between rollouts saved token by token for experiments.inspect; 0: never.
    rollouts_every: int = 0
    rollout_prompts: int = 4  # of a saved step: how many prompts, with all their answers


@dataclass(frozen=True)
class Config:
    """One run."""

    seed: int = 0
    num_steps: int = 100
    actor: NetworkConfig = field(default_factory=NetworkConfig)
    critic: NetworkConfig = field(default_factory=NetworkConfig)
    actor_optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)  # [S] 1e-6
    critic_optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(learning_rate=1e-5)  # [R]
    )
    train_data: DataConfig = field(default_factory=DataConfig)
    eval_data: DataConfig = field(default_factory=DataConfig)
    prompt: PromptConfig = field(default_factory=PromptConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig)
    batching: BatchingConfig = field(default_factory=BatchingConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log: LogConfig = field(default_factory=LogConfig)


# A `ConfigDict`; typed `Any`, because its fields are known at run time only.
Settings: TypeAlias = Any


def default_config() -> Settings:
    """The defaults of `Config` as a locked `ConfigDict`: what a file in `configs/` edits."""
    return _to_config_dict(Config())


def _to_config_dict(section: Any) -> ConfigDict:
    hints = typing.get_type_hints(type(section))
    values = {}
    for f in dataclasses.fields(section):
        value = getattr(section, f.name)
        if dataclasses.is_dataclass(value):
            values[f.name] = _to_config_dict(value)
        elif value is None:  # an optional field keeps its type, so that flags can set it
            values[f.name] = config_dict.placeholder(_optional_type(hints[f.name]))
        else:
            values[f.name] = value
    return ConfigDict(values).lock()


def _optional_type(hint: Any) -> type:
    return next(t for t in typing.get_args(hint) if t is not types.NoneType)


def from_config_dict(values: Settings) -> Config:
    """Freezes an edited `default_config()`; raises `ConfigError` on a setting that cannot work."""
    config = _from_config_dict(Config, values, "config")
    check_config(config)
    return config


def from_dict(values: dict[str, Any]) -> Config:
    """The config of which `values` is `dataclasses.asdict`, as JSON keeps it (lists for tuples).

    What it lacks has its default. Raises `ConfigError` on a setting that this version does not know
    or that cannot work.
    """
    config = _from_config_dict(Config, values, "config")
    check_config(config)
    return config


def _from_config_dict(cls: type, values: ConfigDict | dict[str, Any], where: str) -> Any:
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ConfigError(f"{where}.{unknown[0]} is not a setting; known here: {', '.join(hints)}")
    arguments = {}
    for name, hint in hints.items():
        if name not in values:
            continue
        value = values[name]
        if dataclasses.is_dataclass(hint):
            section = typing.cast("ConfigDict | dict[str, Any]", value)
            value = _from_config_dict(typing.cast(type, hint), section, f"{where}.{name}")
        elif typing.get_origin(hint) is Literal and value not in typing.get_args(hint):
            allowed = ", ".join(repr(a) for a in typing.get_args(hint))
            raise ConfigError(f"{where}.{name} is {value!r}; choose one of {allowed}")
        arguments[name] = tuple(value) if isinstance(value, list) else value
    return cls(**arguments)
