"""The configuration: frozen dataclasses, the only place where a default is written.

A run's file in `configs/` edits `default_config()`; `config.reading` turns the result into the
frozen, checked `Config` that the library takes. A tag gives the source of a default: [P] the paper
states it (arXiv 2510.01656), [S] a summary of the paper states it, [R] it is the default of ROLL,
the framework of the authors, [D] the paper is silent and this is our choice.
"""

import datetime
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, TypeVar

from asyppo_jax.config.algorithm_settings import AlgorithmConfig
from asyppo_jax.config.errors import ConfigError
from asyppo_jax.config.value_settings import ValueConfig

T = TypeVar("T")
# A setting that may differ when a run is resumed, because it changes how a step is computed or what
# is reported, but not the results of a step beyond rounding.
MayChange: TypeAlias = Annotated[T, "may change on resume"]


@dataclass(frozen=True)
class NetworkConfig:
    """Which weights a network starts from, and how it computes."""

    path: str = ""  # a Hugging Face directory or hub name; empty (critics only): the actor's
    architecture: str = ""  # a config.json to use instead of the one in `path`
    num_layers: int | None = None  # keep only the first n layers; None keeps all
    # Of activations and of products with weights; the stored parameters are float32.
    dtype: Literal["float32", "bfloat16"] = "float32"
    # What each layer stores for the backward pass, which recomputes the rest. "none": all
    # activations; "full": its input only; "attention": also the products with the weights of its
    # attention, and the output of the kernel "splash"; "attention_gate": also that with the gate of
    # its MLP; "dots": all products with weights. docs/pods.md has the bytes.
    remat: Literal["none", "dots", "attention_gate", "attention", "full"] = "full"
    # Layers unrolled per scan iteration; 0 unrolls all, which avoids stacking activations across
    # layers: up to a fifth less time per update on a GPU, about twice the compile time.
    unroll: int = 1
    # The attention backend for full sequences. "auto": "splash" on TPU, "cudnn" on GPU, else "xla".
    attention: Literal["auto", "xla", "splash", "cudnn"] = "auto"
    # The attention backend for one new token and its KV cache (actor only). "auto": "blocks" on
    # CPU; in bfloat16 the kernels "pages" on TPU (head_dim a multiple of 128) and "layers" on GPU;
    # else "dense".
    decode_attention: Literal["auto", "blocks", "dense", "pages", "layers"] = "auto"


@dataclass(frozen=True)
class OptimizerConfig:
    """Clipping of the global gradient norm, then AdamW; the learning rate warms up linearly."""

    learning_rate: float = 1e-6
    warmup_steps: int = 0  # optimizer updates (not steps) until the full learning rate
    # The learning rate after the warm-up: "constant"; or it falls, along a line or half a cosine,
    # to `final_fraction` of itself within `decay_steps` optimizer updates, and stays there.
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    decay_steps: int = 0
    final_fraction: float = 0.0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    # The dtype of Adam's first moment: bfloat16 saves 2 of Adam's 8 bytes per parameter. The second
    # moment stays float32: at b2 = 0.999 one update changes it by less than bfloat16 resolves.
    moment_dtype: Literal["float32", "bfloat16"] = "float32"


@dataclass(frozen=True)
class DataConfig:
    """Where the records {problem, answer} come from."""

    source: Literal["jsonl", "parquet", "hub", "reasoning_gym", "function"] = "jsonl"
    path: str = ""  # a file, a hub name, a reasoning-gym task, or "module:function"
    split: str = "train"  # of a hub data set; passed to a "function" source
    problem_field: str = "problem"
    answer_field: str = "answer"
    answer_pattern: str = (
        ""  # a regular expression whose group 1 is the answer, e.g. r"####\s*(.+)"
    )
    num_records: int | None = None  # use the first n; for generated records, how many to generate
    seed: int = 0  # of generated records


@dataclass(frozen=True)
class PromptConfig:
    """How a problem becomes prompt tokens."""

    template: str = "chat"  # "chat": the tokenizer's chat template; else text with {problem}
    system_prompt: str = (
        "Please reason step by step, and put your final answer within \\boxed{}."  # [P]
    )
    max_length: int = 512  # P, tokens; longer prompts are left out and reported at the start
    # Today, for chat templates that write a date (Llama 3's own default). It is fixed, because
    # prompts would change overnight.
    date: str = "2024-07-26"

    @property
    def day(self) -> datetime.date:
        """`date`; raises `ConfigError` if it is none."""
        try:
            return datetime.date.fromisoformat(self.date)
        except ValueError as error:
            raise ConfigError(
                f"config.prompt.date is {self.date!r}; write it as YYYY-MM-DD"
            ) from error


@dataclass(frozen=True)
class Truncation:
    """The distribution that tokens are drawn from: softmax(logits / temperature), truncated."""

    temperature: float = 1.0  # 0: greedy
    top_k: int = 0  # keep the k likeliest tokens; 0: off
    top_p: float = 1.0  # nucleus (arXiv 1904.09751); 1: off
    min_p: float = 0.0  # minimum probability relative to the likeliest token's (2407.01082); 0: off

    def truncation(self) -> dict[str, Any]:
        """These four options by name, to hand them on to another `Truncation`."""
        return {f.name: getattr(self, f.name) for f in fields(Truncation)}


@dataclass(frozen=True)
class SamplingConfig(Truncation):
    """How completions are drawn in the rollout."""

    temperature: float = 0.99  # [P]
    top_p: float = 0.99  # [P]
    num_prompts: int = 32  # N, per step
    group_size: int = 32  # G [P]
    # Sequences decoded at the same time; 0: all. When a sequence ends, its slot takes the next one.
    slots: int = 0
    # A rollout is sampled in this many chunks, one after the other; each is scored while the next
    # is being sampled. Useful where scoring is slow. A chunk waits for its longest answers.
    chunks: int = 1
    # With config.algorithm.zero_spread_groups = "resample": at most this many rounds of N groups
    # per step, the first one included. 10 is `max_num_gen_batches` of verl's recipes for DAPO.
    max_rounds: int = 10
    max_completion_length: int = 8192  # C, tokens [P]
    stop_tokens: tuple[str, ...] = ()  # in addition to the tokenizer's end-of-sequence tokens
    stop_strings: tuple[str, ...] = ()  # a completion ends with the token that completes one


@dataclass(frozen=True)
class RewardConfig:
    """How a completion becomes a reward in [0, 1], or is marked invalid."""

    # "math", "exact", for reasoning-gym tasks "reasoning_gym" (all or nothing) or
    # "reasoning_gym_partial" (partial credit), or "module:function", called as
    # f(problem, completion, answer), with a parameter `record` also with the record's columns.
    # Several, separated by commas: the reward is their weighted mean.
    function: str = "math"
    time_limit: float = 5.0  # seconds an answer may take before its process is killed
    num_workers: MayChange[int] = 2
    weights: tuple[float, ...] = ()  # of several functions, made to add up to 1; empty: equal

    @property
    def measure(self) -> str:
        """What the mean reward of held-out answers is called where a person reads it."""
        return "accuracy" if self.function in ("math", "exact") else "mean reward"


@dataclass(frozen=True)
class BatchingConfig:
    """How a rollout is divided: a minibatch is one gradient, a microbatch one forward pass."""

    actor_minibatch_size: int = 128  # sequences
    # Sequences, over all critics together; with config.algorithm.critic_data = "all", of each.
    critic_minibatch_size: int = 128
    microbatch_size: int = 16  # sequences; with `packing`, packed rows
    critic_microbatch_size: int = 0  # the same for each critic; 0: its share of microbatch_size
    # Pack several sequences into one row of P + C tokens and skip empty microbatches, so that an
    # update costs what its real tokens cost. Results differ in rounding only. It saves time where
    # answers are shorter than C and a minibatch has several microbatches.
    packing: bool = False
    # Completions (with `packing`: packed rows of completions) that share one forward and backward
    # pass over their prompt; 1: each completion has its own pass. Above 1, a minibatch must contain
    # complete groups. Results differ in rounding only. It saves time where prompts are long. With
    # `packing` on TPU attention falls back to "xla", because splash cannot let several completions
    # see one prompt.
    rows_per_prompt: int = 1
    logits_chunk: int = 128  # positions per sequence whose logits are in memory at the same time

    def critic_microbatch(self, num_critics: int) -> int:
        """Rows of each critic in one microbatch."""
        return self.critic_microbatch_size or self.microbatch_size // num_critics

    def rows_of(self, sequences: int) -> int:
        """The rows of a network for this many sequences (or packed rows of completions)."""
        return sequences // self.rows_per_prompt


class CriticSizes(NamedTuple):
    """What each critic trains on, in responses (with `packing`, `microbatch` in packed rows)."""

    responses: int  # per epoch
    per_prompt: int  # to each prompt that the critic sees
    minibatch: int
    microbatch: int


# Which setting is the size of the `model` axis: of the actor's update, of sampling, of the critics.
ModelField = Literal["model", "sampling_model", "critic_model"]


@dataclass(frozen=True)
class MeshConfig:
    """Devices: `data` shards batch and parameters (FSDP), `model` shards heads and mlp."""

    data: MayChange[int] = -1  # -1: the number of devices divided by `model`
    model: MayChange[int] = 1
    # `model` while sampling and evaluating, with `data` = devices / sampling_model; 0: as `model`.
    # Decoding reads all weights once per shard of `data` and token, and updates send them over
    # `data`. A copy of the actor's parameters in the compute dtype is resharded once per step.
    sampling_model: MayChange[int] = 0
    # `model` for the critics, with `data` = devices / `critic_model`; 0: as `model`. With another
    # size the phases of a step are separate programs.
    critic_model: MayChange[int] = 0
    # What is replicated over `data` during an update, after the stages of ZeRO (arXiv 1910.02054).
    # 3: nothing; parameters are all-gathered per layer, gradients reduced per microbatch.
    # 2: parameters, all-gathered once per minibatch in the compute dtype. This saves traffic if a
    #    minibatch has many microbatches.
    # 1: gradients too, accumulated locally and all-reduced once per minibatch; this needs a float32
    #    gradient buffer that is not sharded over `data`.
    # Optimizer states are sharded in all three.
    zero_stage: MayChange[Literal[3, 2, 1]] = 3
    # On TPUs: compiler options with which the updates reduce sharded gradients by reduce-scatters.
    # Without them, a reduction over more than one dimension of the slice's torus is an all-reduce,
    # which sends twice the bytes. Planned, but not measured on a TPU.
    reduce_scatter: MayChange[bool] = False
    # On TPUs: compiler options with which the updates all-gather weights while they compute. For
    # v6e, where a chip waits for each all-gather without them. Planned, but not measured on a TPU.
    async_gathers: MayChange[bool] = False
    # What is offloaded to host memory (`pinned_host`) while a phase does not need it: nothing, the
    # optimizer states, or the networks too. Each is moved to the host and back once per step, and
    # the phases of a step are separate programs.
    offload: MayChange[Literal["none", "optimizers", "idle"]] = "none"

    def has_own(self, field: ModelField) -> bool:
        """Whether a mesh differs from that of `model`."""
        return getattr(self, field) not in (0, self.model)

    @property
    def is_one_program(self) -> bool:
        """Whether the phases of a step after sampling are one program."""
        return self.offload == "none" and not self.has_own("critic_model")


@dataclass(frozen=True)
class EvaluationConfig(Truncation):
    """Held-out evaluation during training."""

    every: int = 10  # steps; 0: only before the first and after the last
    num_samples: int = 1  # answers per problem; the mean reward is that of all
    batch_size: int = 64  # problems sampled at the same time


@dataclass(frozen=True)
class CheckpointConfig:
    every: MayChange[int] = 10  # steps; 0: only after the last
    keep: MayChange[int] = 2  # the latest n; the best by held-out mean reward is kept as well


@dataclass(frozen=True)
class LogConfig:
    tensorboard: MayChange[bool] = True
    wandb_project: MayChange[str] = ""  # empty: off
    samples_every: MayChange[int] = (
        10  # steps between printed completions, and the last one; 0: never
    )
    num_samples: MayChange[int] = 2
    # Steps between rollouts that are saved token by token for `experiments.inspect`; 0: never.
    rollouts_every: MayChange[int] = 0
    rollout_prompts: MayChange[int] = 4  # prompts of a saved rollout, with all their answers
    # The first n held-out prompts, whose answers each evaluation saves with their values, so that
    # `experiments.inspect` shows two checkpoints side by side; 0: none.
    heldout_prompts: MayChange[int] = 0


@dataclass(frozen=True)
class Config:
    """One run."""

    seed: int = 0
    num_steps: MayChange[int] = 100
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
    value: ValueConfig = field(default_factory=ValueConfig)
    batching: BatchingConfig = field(default_factory=BatchingConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log: LogConfig = field(default_factory=LogConfig)

    @property
    def critic_sizes(self) -> CriticSizes:
        """What one critic trains on; only if there are critics."""
        critics, data = self.algorithm.num_critics, self.algorithm.critic_data
        batch = self.sampling.num_prompts * self.sampling.group_size
        shares = 1 if data == "all" else critics
        return CriticSizes(
            responses=batch // shares,
            per_prompt=self.sampling.group_size // (critics if data == "responses" else 1),
            minibatch=self.batching.critic_minibatch_size // shares,
            microbatch=self.batching.critic_microbatch(critics),
        )

    @property
    def reference_length(self) -> int:
        """R, by which the critics' prompts are longer than the actor's; 0: they are the same."""
        return self.value.reference_max_length if self.value.reference_answer else 0

    @property
    def options(self) -> str:
        """How values and advantages differ from the defaults, such as "head=sigmoid, loss=bce"."""
        sections = (
            (self.value, ValueConfig(), [f.name for f in fields(ValueConfig)]),
            (self.algorithm, AlgorithmConfig(), _OF_VALUES_AND_ADVANTAGES),
        )
        return ", ".join(
            f"{name}={getattr(mine, name)}"
            for mine, default, names in sections
            for name in names
            if getattr(mine, name) != getattr(default, name)
        )


# What `AlgorithmConfig.method` leaves out.
_OF_VALUES_AND_ADVANTAGES = (
    *("gamma", "gae_lambda", "length_adaptive_lambda", "returns", "returns_lambda"),
    *("explained_variance_gate", "overlong_filter", "value_timing", "advantage_whitening"),
    *("critic_data", "value_aggregation"),
)
