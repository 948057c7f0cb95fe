"""Small networks, settings and rollouts that many tests share."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import meta

from asyppo_jax.algorithm.state import create_train_state
from asyppo_jax.algorithm.train_step import train_step
from asyppo_jax.config import Config, default_config, from_config_dict
from asyppo_jax.models.actor_critic import Actor, Critic, Networks, init_actor
from asyppo_jax.models.config import ModelConfig, RopeScaling
from asyppo_jax.models.formats.huggingface import save_params
from asyppo_jax.models.pretrained import load_actor_params, load_networks
from asyppo_jax.runs.rollout_files import SavedAnswer
from asyppo_jax.runtime.sharding import make_mesh
from asyppo_jax.sampling import DecodingOptions
from asyppo_jax.sampling.sampler import Sampler, make_sampler
from asyppo_jax.tasks.prompts import make_prompts
from asyppo_jax.tasks.records import Record
from asyppo_jax.tasks.tokenizers import load_tokenizer, pad_token_id, stop_token_ids
from asyppo_jax.types import Rollout
from experiments.quickstart.tokenizer import VOCABULARY as VOCABULARY_OF_TEXT
from experiments.quickstart.tokenizer import save_tokenizer

PROMPT, COMPLETION, VOCABULARY = 5, 9, 61

QWEN3 = ModelConfig(
    model_type="qwen3",
    vocab_size=VOCABULARY,
    embed_dim=32,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    mlp_dim=48,
    norm_eps=1e-6,
    rope_theta=10000.0,
    rope_scaling=None,
    tie_embeddings=True,
    qk_norm=True,
    attention_bias=False,
)
QWEN2 = dataclasses.replace(
    QWEN3, model_type="qwen2", qk_norm=False, attention_bias=True, tie_embeddings=False, head_dim=8
)
LLAMA3 = dataclasses.replace(
    QWEN3,
    model_type="llama",
    qk_norm=False,
    rope_scaling=RopeScaling(
        factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position=32
    ),
)
ARCHITECTURES = {"qwen3": QWEN3, "qwen2": QWEN2, "llama3": LLAMA3}


def make_config(num_critics: int = 2, **changes) -> Config:
    """Four prompts, eight responses each; `changes` are "section__field" or a top-level field."""
    values = default_config()
    values.sampling.num_prompts = 4
    values.sampling.group_size = 8
    values.sampling.max_completion_length = COMPLETION
    values.prompt.max_length = PROMPT
    values.algorithm.num_critics = num_critics
    values.algorithm.advantage_mask_fraction = 0.2
    values.algorithm.advantages = "gae" if num_critics else "grpo"
    values.algorithm.critic_warmup_steps = 0
    values.actor_optimizer.learning_rate = 1e-3
    values.critic_optimizer.learning_rate = 1e-3
    values.batching.actor_minibatch_size = 16
    values.batching.critic_minibatch_size = 16
    values.batching.microbatch_size = 8
    values.batching.logits_chunk = 4
    for name, value in changes.items():
        section, _, field = name.rpartition("__")
        target = values[section] if section else values
        target[field] = value
    return from_config_dict(values)


def make_networks(num_critics: int = 2, architecture: ModelConfig = QWEN3) -> Networks:
    """An actor of three layers, and critics of one."""
    critic = Critic(dataclasses.replace(architecture, num_layers=1))
    return Networks(Actor(architecture), critic if num_critics else None)


@functools.cache
def make_actor_params(networks: Networks, seed: int = 0):
    """Random parameters, larger than at an initialisation so that every part has a say."""

    @jax.jit
    def create():
        params = meta.unbox(init_actor(networks.actor, jax.random.key(seed)))
        return jax.tree.map(lambda x: x * 4 if x.ndim > 2 else x, params)

    return create()


@functools.cache
def make_state(config: Config, networks: Networks):
    """The state before the first step."""
    actor, critics = _random_params(config.seed, config.algorithm.num_critics, networks)
    create = functools.partial(create_train_state, config, networks)
    return jax.jit(create)(actor_params=actor, critic_params=critics)


@functools.cache
def _random_params(seed: int, num_critics: int, networks: Networks):
    """The parameters that every state of this seed begins with: they are what takes long."""
    config = make_config(num_critics, seed=seed)
    state = jax.jit(lambda: create_train_state(config, networks))()
    return state.actor_params, state.critic_params


@functools.cache
def jit_step(config: Config, networks: Networks):
    return jax.jit(functools.partial(train_step, networks=networks, config=config))


@functools.cache
def jit_logits(networks: Networks):
    """`actor_logits` compiled: op by op it would compile a hundred little programs."""
    return jax.jit(networks.actor_logits)


def make_rollout(config: Config, seed: int = 0) -> Rollout:
    """Random tokens, ragged prompts and completions, 0/1 rewards, one row without a reward."""
    rng = np.random.default_rng(seed)
    batch = config.sampling.num_prompts * config.sampling.group_size
    prompts = rng.integers(1, PROMPT + 1, batch)[:, None]
    completions = rng.integers(1, COMPLETION + 1, batch)[:, None]
    return Rollout(
        tokens=jnp.asarray(rng.integers(0, VOCABULARY, (batch, PROMPT + COMPLETION)), jnp.int32),
        prompt_mask=jnp.asarray(np.arange(PROMPT)[None] >= PROMPT - prompts),
        completion_mask=jnp.asarray(np.arange(COMPLETION)[None] < completions),
        log_probs=jnp.asarray(rng.normal(-4.0, 0.2, (batch, COMPLETION)), jnp.float32),
        rewards=jnp.asarray(rng.integers(0, 2, batch), jnp.float32),
        reward_valid=jnp.asarray(np.arange(batch) != 3),
    )


def with_one_prompt_a_group(rollout: Rollout, config: Config) -> Rollout:
    """As sampled: all responses of a group answer the prompt of its first."""
    first = np.arange(len(rollout.tokens)) // config.sampling.group_size
    first = first * config.sampling.group_size
    prompts = rollout.tokens[first, :PROMPT]
    return rollout.replace(
        tokens=jnp.concatenate([prompts, rollout.tokens[:, PROMPT:]], axis=1),
        prompt_mask=rollout.prompt_mask[first],
    )


def assert_trees_equal(left, right) -> None:
    """Equal to the last bit."""
    jax.tree.map(np.testing.assert_array_equal, left, right)


def assert_trees_close(left, right, atol: float) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=atol), left, right)


def save_model_directory(directory, architecture: ModelConfig | None = None) -> str:
    """A random model with the quickstart's tokenizer, as a Hugging Face directory."""
    save_tokenizer(directory)
    architecture = architecture or dataclasses.replace(QWEN3, vocab_size=len(VOCABULARY_OF_TEXT))
    params = make_actor_params(make_networks(0, architecture))
    save_params(directory, architecture, params, "actor")
    return str(directory)


def make_sampling_setting(directory, problems: tuple[str, ...]):
    """Config, mesh, networks, tokenizer, (stop ids, pad id), prompts, params: a random model."""
    model = save_model_directory(directory)
    config = make_config(
        0,
        actor__path=model,
        prompt__template="{problem}=",
        evaluation__batch_size=2,
        evaluation__num_samples=3,
        sampling__num_prompts=2,
        sampling__group_size=4,
        batching__actor_minibatch_size=8,
        batching__critic_minibatch_size=8,
    )
    tokenizer, networks = load_tokenizer(model), load_networks(config)
    records = [Record(problem, str(eval(problem))) for problem in problems]
    prompts, _ = make_prompts(records, tokenizer, config.prompt)
    ids = stop_token_ids(tokenizer, model, ()), pad_token_id(tokenizer)
    params = jax.tree.map(jnp.asarray, load_actor_params(config, networks))
    return config, make_mesh(config.mesh), networks, tokenizer, ids, prompts, params


def make_options(group_size: int, length: int, **changes) -> DecodingOptions:
    """Sampling at temperature 1, nothing truncated, no stop token."""
    options: dict[str, Any] = {"stop_ids": (), "pad_id": 0} | changes
    return DecodingOptions(group_size=group_size, max_completion_length=length, **options)


def make_config_sampler(
    networks, tokenizer, config: Config, options: DecodingOptions, mesh
) -> Sampler:
    """A sampler with the prompt length and the stop strings of a config."""
    return make_sampler(
        networks,
        tokenizer,
        options,
        mesh,
        max_prompt_length=config.prompt.max_length,
        stop_strings=config.sampling.stop_strings,
    )


def make_saved_answer(**changes) -> SavedAnswer:
    """An answer of three tokens, two critics."""
    answer = SavedAnswer(
        step=3,
        group=0,
        problem="1+1",
        prompt="1+1=",
        reference="2",
        reward=1.0,
        truncated=False,
        critic=1,
        tokens=[4, 5, 6],
        token_texts=["a", "b", "<end>"],
        old_log_probs=[-0.5, -0.25, -0.125],
        log_probs=[-0.5, -0.25, -0.125],
        entropy=[0.5, 0.25, 0.0],
        values=[[0.5, 0.75, 1.0], [0.25, 0.75, 0.5]],
        value_std=[0.125, 0.0, 0.25],
        advantages=[1.5, -0.5, 0.0],
        returns=[1.0, 1.0, 1.0],
        advantage_mask=[True, False, True],
        entropy_mask=[True, True, False],
    )
    return dataclasses.replace(answer, **changes)
