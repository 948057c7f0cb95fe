"""Settings of values that contradict each other: one sentence each, with the fix."""

import pytest

from asyppo_jax.config import ConfigError
from tests.tiny import make_config

GRPO = {"algorithm__advantages": "grpo"}
BAR = {
    "value__stop_at_explained_variance": 0.1,
    "num_steps": 5,
    "algorithm__critic_warmup_steps": 5,
}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"value__loss": "bce"},
            "does not fit config.value.head = 'linear'; set head to 'sigmoid'",
        ),
        ({"value__loss": "hl_gauss"}, "set head to 'bins'"),
        ({"value__head": "bins"}, "loss is 'squared_error', .* set loss to 'two_hot'"),
        (
            {"value__head": "bins", "value__loss": "two_hot", "value__bin_range": (0.1, 1.0)},
            r"bin_range is \(0\.1, 1\.0\), which does not cover rewards from 0 to 1",
        ),
        ({"value__head": "bins", "value__loss": "two_hot", "value__bins": 1}, "bins is 1; it must"),
        (
            {"value__head": "bins", "value__loss": "two_hot", "value__anchor": "group"},
            "anchor is 'group', .* use another head",
        ),
        (
            {"value__head": "sigmoid", "value__loss": "bce", "value__clip_eps": 0.2},
            "clip_eps is 0.2, which clips the squared error",
        ),
        ({"value__clip_eps": -1.0}, "clip_eps is -1.0"),
        ({"value__head_std": 0.0}, r"head_std is 0.0; it must be in \[1e-06, 10\^6\]"),
        (
            {"value__reference_answer": "the answer"},
            r"reference_answer is 'the answer', which does not contain \{answer\}; add it",
        ),
        (
            {"value__reference_max_length": 0},
            "reference_max_length is 0; it must be in",
        ),
        (
            {"algorithm__num_critics": 0, "value__reference_answer": "{answer}"} | GRPO,
            "reference_answer needs critics",
        ),
        ({"value__positions": (0.5, 1.5)}, "positions has 1.5; it must be in"),
        ({"algorithm__returns_lambda": 1.5}, "returns_lambda is 1.5"),
        (
            {"algorithm__length_adaptive_lambda": 0.05},
            r"length_adaptive_lambda is 0\.05, so α·L is below 1 .* make it at least 0\.111",
        ),
        ({"algorithm__length_adaptive_lambda": 0.5} | GRPO, "has no effect with"),
        (
            {"algorithm__num_critics": 0, "algorithm__explained_variance_gate": True} | GRPO,
            "explained_variance_gate needs critics",
        ),
        (
            {"algorithm__num_critics": 0, "value__stop_at_explained_variance": 0.1} | GRPO,
            "stop_at_explained_variance needs critics",
        ),
        (
            {"value__stop_at_explained_variance": 0.1, "num_steps": 5},
            "config.num_steps = 5 is more than config.algorithm.critic_warmup_steps = 0",
        ),
        (
            {"value__head": "sigmoid", "value__loss": "bce", "algorithm__overlong_buffer": 4},
            r"head is 'sigmoid', .*overlong_buffer rewards may be below 0",
        ),
        (
            {"value__anchor": "group", "algorithm__overlong_buffer": 4},
            "anchor is 'group', which takes rewards from 0 to 1",
        ),
        (
            {"algorithm__explained_variance_gate": True} | GRPO,
            "explained_variance_gate is True, wh",
        ),
        (
            {"algorithm__returns_lambda": 1.0, "algorithm__returns": "monte_carlo"},
            "returns_lambda is 1.0, which has no effect",
        ),
        ({"value__noise_weights": True, "algorithm__num_critics": 0} | GRPO, "needs critics"),
        (BAR | {"value__anchor": "group"}, "cannot tell what critics explain from what"),
        (BAR | {"algorithm__gae_lambda": 0.9}, "with λ = 0.9 they contain the critics' own values"),
    ],
)
def test_a_contradiction_is_refused_in_one_sentence(changes, sentence):
    with pytest.raises(ConfigError, match=sentence):
        make_config(2, **changes)


def test_the_recipes_are_fine():
    make_config(2, value__head="sigmoid", value__loss="bce", value__anchor="shrunken_group")
    make_config(2, value__head="bins", value__loss="hl_gauss", value__head_init="rollout")
    make_config(1, algorithm__length_adaptive_lambda=0.4, algorithm__returns_lambda=1.0)
