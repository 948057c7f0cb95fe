"""An actor, or a stack of critics, ready to be called from Python: logits, completions, values."""

import dataclasses
import functools
import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from asyppo_jax.config import Config, ConfigError, PromptConfig, Truncation
from asyppo_jax.config.errors import did_you_mean
from asyppo_jax.config.ranges import check_fields
from asyppo_jax.models.actor_critic import Networks
from asyppo_jax.models.config import beyond_positions
from asyppo_jax.sampling import DecodingOptions
from asyppo_jax.sampling.sampler import Sampler, make_sampler, read_answers
from asyppo_jax.tasks.benchmarks import BenchmarkSettings
from asyppo_jax.tasks.prompts import Prompt, tokenize_problem, unknown_text
from asyppo_jax.tasks.records import Record
from asyppo_jax.tasks.tokenizers import Tokenizer, special_ids
from asyppo_jax.types import Params

_SHORTEST_PROMPT = 32  # prompts are padded to this times a power of 2: few lengths to compile


@dataclass(frozen=True, eq=False)
class LoadedActor:
    """An actor with its tokenizer, to be called from Python.

    The methods are for notebooks. Inside jit, call `networks.actor_logits` with `params`.
    """

    path: str  # as it was given
    networks: Networks  # without critics
    params: Params
    tokenizer: Tokenizer
    config: Config  # the run's; for a bare model the defaults with its path and template
    step: int | None  # None: not from the workdir of a run
    mesh: Mesh
    of_run: bool = True  # whether `config` is that of a run: its workdir's, or kept by an export

    def __repr__(self) -> str:
        return _describe("LoadedActor", self.path, self.step, self.networks.actor, self.mesh)

    def logits(self, tokens: Any, mask: Any = None) -> Float[Array, "B T V"]:
        """All logits in float32; those at t predict token t + 1.

        Args:
            tokens: ids [B, T] as an array or lists of one length, or what the tokenizer returned.
            mask: [B, T], true on real tokens; None: the tokenizer's, or all.

        Raises:
            ConfigError: the shapes do not fit, or an id is not in the vocabulary.
        """
        tokens, mask = _token_arrays(tokens, mask, self.networks.actor.config.vocab_size)
        with jax.set_mesh(self.mesh):
            return _logits(self.params, tokens, mask, networks=self.networks)

    def generate(
        self,
        problems: Sequence[str],
        *,
        num_samples: int = 1,
        max_completion_length: int | None = None,
        seed: int = 0,
        prompt: PromptConfig | None = None,
        **truncation: float,
    ) -> list[list[str]]:
        """Completions of the training sampler: `num_samples` texts for each problem.

        Args:
            problems: texts; a prompt is made of each.
            num_samples: completions per problem.
            max_completion_length: in tokens; None: the run's, or 256 for a model of no run.
            seed: of the noise; the same seed gives the same texts.
            prompt: how prompts are made; None: as in `config`. To continue a text as it stands,
                give `PromptConfig(template="{problem}")`.
            **truncation: `temperature` (1.0; 0 is greedy), `top_k`, `top_p`, `min_p`: the fields of
                `config.Truncation`.

        Raises:
            ConfigError: a problem that is no text, a template that does not suit the tokenizer, or
                an option out of range.
            TypeError: an option that does not exist; the message names the nearest one.
        """
        check_texts(problems)
        _check_names(truncation)
        chosen = Truncation(**cast(Any, truncation))
        if max_completion_length is None:
            max_completion_length = self._default_length()
        settings = BenchmarkSettings(
            num_samples=num_samples,
            max_completion_length=max_completion_length,
            seed=seed,
            **chosen.truncation(),
        )
        check_fields(settings)
        prompt = self.config.prompt if prompt is None else prompt
        prompts = [
            Prompt(tokenize_problem(p, self.tokenizer, prompt), Record(p, "")) for p in problems
        ]
        if not prompts:
            return []
        options = self.options(settings, max_completion_length)
        self.report_prompts(prompts, max_completion_length, prompt)
        # Prompts are sharded over the mesh, so their number must be a multiple of its data axis.
        padded = prompts + [prompts[-1]] * (-len(prompts) % self.mesh.shape["data"])
        sampler = self.sampler(options, max(len(p.tokens) for p in prompts))
        with jax.set_mesh(self.mesh):
            rollout = sampler(self.params, padded, jax.random.key(seed), self.mesh)
            texts = read_answers(rollout, padded, sampler).completions
        return [texts[i * num_samples :][:num_samples] for i in range(len(problems))]

    def _default_length(self) -> int:
        return self.config.sampling.max_completion_length if self.of_run else 256

    def options(self, settings: BenchmarkSettings, length: int) -> DecodingOptions:
        """How answers of up to `length` tokens are drawn, with this model's end tokens.

        Raises:
            ConfigError: the model has no end token, or one without a row in its embedding.
        """
        rows, stop_tokens = self.networks.actor.config.vocab_size, self.config.sampling.stop_tokens
        path = self.config.actor.path
        stop_ids, pad_id = special_ids(self.tokenizer, path, stop_tokens, rows)
        return DecodingOptions(
            **settings.truncation(),
            group_size=settings.num_samples,
            max_completion_length=length,
            stop_ids=stop_ids,
            pad_id=pad_id,
            slots=settings.slots,
        )

    def report_prompts(self, prompts: Sequence[Prompt], length: int, made: PromptConfig) -> None:
        """Prints a sentence if the tokenizer does not know all text of the prompts, and one if they
        and answers of `length` tokens may be longer than what the model was trained on.
        """
        longest = max(len(prompt.tokens) for prompt in prompts) + length
        too_long = beyond_positions(self.networks.actor.config, longest, "actor")
        for sentence in filter(None, (unknown_text(prompts, self.tokenizer, made), too_long)):
            print(sentence, file=sys.stderr)

    def sampler(self, options: DecodingOptions, prompt_length: int) -> Sampler:
        """A compiled sampler for prompts of up to `prompt_length` tokens; compiled once each."""
        length = _SHORTEST_PROMPT
        while length < prompt_length:
            length *= 2
        strings = self.config.sampling.stop_strings
        return _sampler(self.networks, self.tokenizer, length, strings, options, self.mesh)


@dataclass(frozen=True, eq=False)
class LoadedCritics:
    """K critics as one stack. Inside jit, vmap `networks.critic_values` over `params`."""

    path: str  # as it was given, the first of several
    networks: Networks
    params: Params  # every leaf has a leading axis K
    num_critics: int
    config: Config
    step: int | None
    mesh: Mesh

    def __repr__(self) -> str:
        critic = self.networks.critic
        assert critic is not None
        return (
            f"{self.num_critics} x {_describe('critic', self.path, self.step, critic, self.mesh)}"
        )

    def values(
        self,
        tokens: Any,
        mask: Any = None,
        *,
        anchor: Any = None,
        references: Sequence[Sequence[int]] | None = None,
    ) -> Float[Array, "K B T"]:
        """V_k at every token: entry t has seen tokens 0 … t, so it is V(s_{t+1}).

        `anchor` [B] is what the outputs of a run with `config.value.anchor` are added to, such as
        `shrunken_group_mean(rewards, valid, group_size)`; other runs need none. `references` are
        the token ids that critics with `config.value.reference_answer` read before each row
        (`tasks.prompts.reference_tokens`). The other arguments are those of `LoadedActor.logits`.

        Raises:
            ConfigError: what `LoadedActor.logits` raises, or anchor or references are missing.
        """
        assert self.networks.critic is not None
        tokens, mask = _token_arrays(tokens, mask, self.networks.critic.config.vocab_size)
        kind = self.config.value.anchor
        if (anchor is None) != (kind == "none"):
            raise ConfigError(
                f"these critics have config.value.anchor = {kind!r}; "
                + (
                    "give no anchor"
                    if kind == "none"
                    else "give the anchor of each row, [B], such as "
                    "shrunken_group_mean(rewards, valid, group_size)"
                )
            )
        anchor = None if anchor is None else jnp.asarray(anchor, jnp.float32)
        length = tokens.shape[1]
        template = self.config.value.reference_answer
        if (references is None) != (template == ""):
            raise ConfigError(
                f"these critics have config.value.reference_answer = {template!r}; "
                + (
                    "give no references"
                    if references is not None
                    else "give references, of each row the token ids of its reference answer: "
                    "[reference_tokens(answer, tokenizer, critics.config.value), ...]"
                )
            )
        if references is not None:
            tokens, mask = _behind_references(tokens, mask, references)
            tokens, mask = _token_arrays(tokens, mask, self.networks.critic.config.vocab_size)
        with jax.set_mesh(self.mesh):
            values = _values(self.params, tokens, mask, anchor, networks=self.networks)
        return values[:, :, -length:]


def check_texts(problems: Any) -> None:
    """Raises `ConfigError` if `problems` is not a list of texts."""
    if isinstance(problems, str):
        raise ConfigError(f"problems is one text; give a list of texts: [{problems[:40]!r}]")
    for problem in [problems] if isinstance(problems, Mapping) else problems:
        if not isinstance(problem, str):
            raise ConfigError(
                f"problems must be texts, not {type(problem).__name__}; generate makes a prompt of "
                "each text and tokenizes it"
            )


def _check_names(truncation: Mapping[str, Any]) -> None:
    """Raises `TypeError` on a keyword of `generate` that is not an option."""
    fields = [field.name for field in dataclasses.fields(Truncation)]
    known = [*inspect.signature(LoadedActor.generate).parameters][2:-1] + fields
    for name in truncation.keys() - set(fields):
        hint = did_you_mean(name, known, f"the options are {', '.join(known)}")
        raise TypeError(f"generate() has no option {name!r}; {hint}")


def _describe(kind: str, path: str, step: int | None, network: Any, mesh: Mesh) -> str:
    """One line for a notebook's cell: where it is from, its size, its dtype and its devices."""
    c, at = network.config, "" if step is None else f", step {step}"
    size = f"{c.model_type}, {c.num_layers} layers of width {c.embed_dim}"
    devices = f"{mesh.size} {next(iter(mesh.devices.flat)).platform} device{'s' * (mesh.size > 1)}"
    return f"{kind}({path!r}{at}: {size}, {jnp.dtype(network.dtype).name}, {devices})"


def _token_arrays(
    tokens: Any, mask: Any, vocab_size: int
) -> tuple[Int[np.ndarray, "B T"], Bool[np.ndarray, "B T"]]:
    """Token ids and their mask from arrays, lists, or what a tokenizer returned."""
    if isinstance(tokens, Mapping):
        tokens, mask = tokens["input_ids"], tokens.get("attention_mask") if mask is None else mask
    try:
        ids = np.asarray(tokens)
    except ValueError as error:  # rows of different lengths
        raise ConfigError(
            "the rows of tokens have different lengths; pad them to one length, and give a mask "
            "that is true on real tokens"
        ) from error
    if ids.ndim != 2 or not np.issubdtype(ids.dtype, np.integer):
        raise ConfigError(
            f"tokens have shape {ids.shape} and dtype {ids.dtype}; give ids [B, T], such as "
            'tokenizer(["a text"], return_tensors="np")'
        )
    mask = np.ones(ids.shape, bool) if mask is None else np.asarray(mask).astype(bool)
    if mask.shape != ids.shape:
        raise ConfigError(f"the mask has shape {mask.shape}, the tokens have {ids.shape}")
    if ids.size and not 0 <= ids.min() <= ids.max() < vocab_size:
        raise ConfigError(
            f"token ids are between {ids.min()} and {ids.max()}, but the vocabulary has "
            f"{vocab_size}; use this model's tokenizer"
        )
    return ids, mask


def _behind_references(
    tokens: Int[np.ndarray, "B T"],
    mask: Bool[np.ndarray, "B T"],
    references: Sequence[Sequence[int]],
) -> tuple[Int[np.ndarray, "B S"], Bool[np.ndarray, "B S"]]:
    """Rows with each reference directly before the first real token; S = T + the longest one."""
    if len(references) != len(tokens):
        raise ConfigError(
            f"there are {len(references)} references for {len(tokens)} rows of tokens; give the "
            "token ids of one for each row"
        )
    longest = max(map(len, references), default=0)
    tokens, mask = (np.pad(x, ((0, 0), (longest, 0))) for x in (tokens, mask))
    for row, reference in enumerate(references):
        first = int(np.argmax(mask[row])) if mask[row].any() else longest
        tokens[row, first - len(reference) : first] = reference
        mask[row, first - len(reference) : first] = True
    return tokens, mask


@functools.partial(jax.jit, static_argnames="networks")
def _logits(params, tokens, mask, *, networks: Networks):
    return networks.actor_logits(params, jnp.asarray(tokens, jnp.int32), mask)


@functools.partial(jax.jit, static_argnames="networks")
def _values(params, tokens, mask, anchor, *, networks: Networks):
    one = functools.partial(
        networks.critic_outputs, tokens=jnp.asarray(tokens, jnp.int32), segments=mask
    )
    outputs, head = jax.vmap(one)(params), networks.value_head
    return head.value(outputs) if anchor is None else head.value_around(outputs, anchor)


@functools.lru_cache(maxsize=8)
def _sampler(
    networks: Networks,
    tokenizer: Tokenizer,
    length: int,
    stop_strings: tuple[str, ...],
    options: DecodingOptions,
    mesh: Mesh,
) -> Sampler:
    return make_sampler(
        networks, tokenizer, options, mesh, max_prompt_length=length, stop_strings=stop_strings
    )
