"""Logits equal those of transformers (PyTorch) on small random models, loaded and saved."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asyppo_jax.models.actor_critic import Actor, Critic, Networks, init_critics
from asyppo_jax.models.formats.huggingface import load_config, load_params, save_params
from tests.tiny import ARCHITECTURES, QWEN3, make_actor_params, make_networks

pytest.importorskip("torch")
pytestmark = pytest.mark.torch

SMALL = dict(
    vocab_size=97,
    hidden_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    intermediate_size=64,
    head_dim=16,
    max_position_embeddings=256,
)
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
CONFIGS = {
    "qwen3": ("Qwen3Config", SMALL),
    "qwen3-untied": ("Qwen3Config", SMALL | {"tie_word_embeddings": False}),
    "qwen2": ("Qwen2Config", {k: v for k, v in SMALL.items() if k != "head_dim"}),
    "llama": ("LlamaConfig", SMALL),
    "llama3": ("LlamaConfig", SMALL | {"rope_parameters": LLAMA3_ROPE}),
}


def _logits_of(model, tokens):
    torch = pytest.importorskip("torch")

    with torch.no_grad():
        return model(torch.tensor(tokens)).logits.numpy()


def _random_model(name):
    torch = pytest.importorskip("torch")
    import transformers

    torch.manual_seed(0)
    kind, values = CONFIGS[name]
    model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, kind)(**values))
    with torch.no_grad():  # noise, because biases are initialised to 0 and norms to 1
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


@pytest.mark.parametrize("name", list(CONFIGS))
def test_logits_equal_those_of_transformers(name, tmp_path):
    model = _random_model(name)
    model.save_pretrained(tmp_path)
    config = load_config(str(tmp_path))
    params = jax.tree.map(jnp.asarray, load_params(str(tmp_path), config, "actor"))
    tokens = np.random.default_rng(0).integers(0, 97, (2, 80))
    ours = Networks(Actor(config), None).actor_logits(
        params, jnp.asarray(tokens), jnp.ones(tokens.shape, bool)
    )
    np.testing.assert_allclose(ours, _logits_of(model, tokens), atol=1e-4)


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_transformers_loads_our_saved_models_with_equal_logits(name, tmp_path):
    import transformers

    networks = make_networks(0, ARCHITECTURES[name])
    params = make_actor_params(networks)
    save_params(tmp_path, networks.actor.config, params, "actor")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    tokens = np.random.default_rng(0).integers(0, 61, (2, 40))
    ours = networks.actor_logits(params, jnp.asarray(tokens), jnp.ones(tokens.shape, bool))
    np.testing.assert_allclose(ours, _logits_of(model, tokens), atol=1e-4)


def test_transformers_loads_a_critic_as_token_classifier_with_equal_values(tmp_path):
    import transformers
    from flax.core import meta

    critic = Critic(QWEN3)
    stack = meta.unbox(init_critics(critic, jax.random.key(0), 1))
    params = jax.tree.map(lambda x: np.asarray(x[0]) * 2, stack)
    params["value_bias"] = np.float32(0.3)
    save_params(tmp_path, QWEN3, params, "critic")
    model = transformers.AutoModelForTokenClassification.from_pretrained(tmp_path).eval()
    tokens = np.random.default_rng(0).integers(0, 61, (2, 12))
    ours = Networks(Actor(QWEN3), critic).critic_values(
        params, jnp.asarray(tokens), jnp.ones(tokens.shape, bool)
    )
    np.testing.assert_allclose(ours, _logits_of(model, tokens)[..., 0], atol=1e-4)
