"""Each setting that cannot work is refused in one sentence."""

import pytest

from asyppo_jax.config import ConfigError, MeshConfig
from asyppo_jax.config.checks import check_divides_data_axis, mesh_shape
from tests.config.test_settings import with_changes
from tests.tiny import make_config


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"algorithm__advantage_mask_fraction": 1.0},
            r"advantage_mask_fraction is 1\.0; .*\[0, 1\)",
        ),
        ({"algorithm__entropy_mask_fraction": -0.1}, r"entropy_mask_fraction is -0\.1"),
        ({"algorithm__kl_coef": -0.1}, r"kl_coef is -0\.1; it must be in \[0, 1000\]"),
        ({"algorithm__kl_coef": float("nan")}, r"kl_coef is nan; it must be in"),
        ({"algorithm__positive_nll_coef": -0.1}, r"positive_nll_coef is -0\.1; it must be in"),
        ({"algorithm__kl_estimator": "k4"}, r"kl_estimator is 'k4'; choose one of 'k1', 'k2'"),
        ({"seed": 2**31}, r"config\.seed is 2147483648; it must be in \[0, 2147483647\]"),
        ({"algorithm__gamma": 1.5}, r"config\.algorithm\.gamma is 1\.5"),
        ({"algorithm__num_critics": 3}, "group_size is 32, which 3 critics cannot share evenly"),
        ({"algorithm__num_critics": -1}, "num_critics is -1"),
        (
            {"algorithm__num_critics": 3, "algorithm__critic_data": "prompts"},
            "num_prompts is 32, which 3 critics cannot share evenly; make it a multiple",
        ),
        (
            {"algorithm__num_critics": 1, "algorithm__critic_data": "all"},
            "critic_data is 'all', which has no effect with .*num_critics = 1; set it to 'respons",
        ),
        (
            {"algorithm__num_critics": 1, "algorithm__value_aggregation": "min"},
            "value_aggregation is 'min', which has no effect with .*num_critics = 1; set it to 'm",
        ),
        (
            {"algorithm__value_aggregation": "min", "algorithm__advantages": "grpo"},
            "value_aggregation is 'min', but .*'grpo' has no values in its advantages; set",
        ),
        (
            {
                "algorithm__mask_by": "random",
                "algorithm__advantage_mask_fraction": 0.0,
                "algorithm__entropy_mask_fraction": 0.0,
            },
            "mask_by is 'random', which has no effect with both mask fractions at 0",
        ),
        (
            {
                "algorithm__critic_data": "prompts",
                "batching__rows_per_prompt": 4,
                "batching__critic_minibatch_size": 32,
            },
            r"critic_minibatch_size is 32; .*group_size \* num_critics = 64",
        ),
        (
            {"algorithm__critic_data": "all", "batching__critic_microbatch_size": 48},
            r"critic_microbatch_size \(for each critic\) is 48, .*minibatch_size = 128",
        ),
        (
            {"algorithm__value_timing": "during"},
            r"value_timing is 'during'; choose one of 'before_update'",
        ),
        ({"sampling__top_p": 0.0}, r"top_p is 0\.0"),
        ({"batching__microbatch_size": 48}, "does not divide config.batching.actor_minibatch_size"),
        ({"batching__actor_minibatch_size": 100}, "actor_minibatch_size is 100, which does not"),
        (
            {"sampling__chunks": 3},
            "config.sampling.chunks is 3, which does not divide config.sampling.num_prompts = 32",
        ),
        (
            {"sampling__slots": 1025},
            "config.sampling.slots is 1025; it must be at most the batch, .* = 1024, or 0",
        ),
        ({"sampling__min_p": 1.5}, "config.sampling.min_p is 1.5; it must be in"),
        ({"evaluation__top_p": 0.0}, "config.evaluation.top_p is 0.0; it must be in"),
        ({"batching__microbatch_size": 0}, "microbatch_size is 0"),
        ({"critic__unroll": -1}, r"config.critic.unroll is -1; it must be in \[0, 10000\]"),
        ({"batching__rows_per_prompt": 0}, r"rows_per_prompt is 0; it must be in \[1, 10\^7\]"),
        (
            {"batching__rows_per_prompt": 32},
            "rows_per_prompt is 32, which does not divide a critic's share of a group",
        ),
        (
            {"batching__rows_per_prompt": 16},
            r"16, which does not divide .*critic_microbatch_size, = 8",
        ),
        (
            {"batching__rows_per_prompt": 8, "batching__actor_minibatch_size": 16},
            "actor_minibatch_size is 16; .* multiple of config.sampling.group_size = 32",
        ),
        (
            {"batching__critic_microbatch_size": 48},
            r"critic_microbatch_size \(for each critic\) is 48, .*share .* = 64",
        ),
        ({"algorithm__num_critics": 0}, "advantages is 'gae', which needs the values of critics"),
        ({"algorithm__group_scale": "none"}, "group_scale is 'none', which has no effect with"),
        (
            {"algorithm__advantages": "rloo"},
            "'rloo', which is not whitened, but .* is 'before_mask'; set it to 'none'",
        ),
        (
            {
                "algorithm__advantages": "reinforce_plus_plus",
                "algorithm__advantage_whitening": "none",
            },
            "'reinforce_plus_plus', which is normalized over the batch, but .* is 'none'",
        ),
        (
            {
                "algorithm__advantages": "rloo",
                "algorithm__advantage_whitening": "none",
                "algorithm__group_scale": "none",
            },
            "group_scale is 'none', which has no effect with .* = 'rloo'",
        ),
        (
            {
                "algorithm__zero_spread_groups": "drop",
                "algorithm__num_critics": 1,
                "sampling__group_size": 1,
            },
            "zero_spread_groups is 'drop', but config.sampling.group_size is 1",
        ),
        (
            {"algorithm__zero_spread_groups": "resample", "sampling__max_rounds": 1},
            "max_rounds is 1, so .*'resample' samples nothing again; make it 2 or more, or set",
        ),
        (
            {"algorithm__overlong_buffer": 8193},
            "overlong_buffer is 8193; .* config.sampling.max_completion_length = 8192",
        ),
        ({"algorithm__overlong_buffer": -1}, r"overlong_buffer is -1; it must be in \[0, 10\^7\]"),
        ({"algorithm__overlong_penalty": 0.0}, r"overlong_penalty is 0\.0; it must be in \(0, 1\]"),
        ({"algorithm__clip_eps_low": -0.2}, r"clip_eps_low is -0.2; it must be in \[0, 10\^6\]"),
        ({"algorithm__clip_eps_high": float("nan")}, "clip_eps_high is nan; it must be in"),
        ({"algorithm__dual_clip": 1.0}, r"dual_clip is 1\.0; it must be 0 or in \(1, 10\^6\]"),
        ({"algorithm__dual_clip": -3.0}, r"dual_clip is -3\.0; it must be 0 or in"),
        (
            {"actor_optimizer__decay_steps": 9},
            "actor_optimizer.decay_steps is 9, which has no effect with .*schedule = 'constant'",
        ),
        (
            {"critic_optimizer__final_fraction": 0.5},
            r"critic_optimizer.final_fraction is 0\.5, which has no effect with",
        ),
        (
            {"critic_optimizer__schedule": "cosine"},
            "critic_optimizer.decay_steps is 0; with .*schedule = 'cosine' it must be 1 or more",
        ),
        (
            {
                "actor_optimizer__schedule": "linear",
                "actor_optimizer__decay_steps": 9,
                "actor_optimizer__final_fraction": 1.5,
            },
            r"actor_optimizer.final_fraction is 1\.5; it must be in \[0, 1\]",
        ),
        ({"sampling__temperature": -1.0}, r"sampling\.temperature is -1\.0; it must be 0 or in"),
        ({"evaluation__top_k": -1}, r"evaluation\.top_k is -1"),
        (
            {"algorithm__num_critics": 32, "batching__microbatch_size": 16},
            r"num_critics is 32, which does not divide config\.batching\.microbatch_size = 16",
        ),
    ],
)
def test_what_cannot_work_is_refused_with_its_field_and_the_fix(changes, sentence):
    with pytest.raises(ConfigError, match=sentence):
        with_changes(**changes)


def test_the_minibatch_of_critics_is_not_checked_without_critics():
    sizes = {"algorithm__advantages": "grpo", "batching__critic_minibatch_size": 100}
    with_changes(algorithm__num_critics=0, **sizes)
    with pytest.raises(ConfigError, match="critic_minibatch_size is 100, which does not"):
        with_changes(algorithm__num_critics=2, **sizes)


def test_sizes_must_divide_the_data_axis():
    check_divides_data_axis(make_config(0), 4)
    with pytest.raises(ConfigError, match="num_prompts is 4; make it a multiple"):
        check_divides_data_axis(make_config(0), 3)
    with pytest.raises(ConfigError, match="num_prompts / chunks is 2; make it a multiple"):
        check_divides_data_axis(make_config(0, sampling__chunks=2), 4)


def test_a_mesh_of_a_phase_must_divide_its_rows():
    def config(**mesh):
        return make_config(2, **{f"mesh__{name}": size for name, size in mesh.items()})

    check_divides_data_axis(config(model=2), 8)
    check_divides_data_axis(config(model=8, sampling_model=2, critic_model=1), 8)
    sentence = (
        r"num_prompts is 4; make it a multiple of the data axis, 8 with config\.mesh\."
        r"sampling_model = 1, or set that to 2"
    )
    with pytest.raises(ConfigError, match=sentence):
        check_divides_data_axis(config(model=8, sampling_model=1), 8)
    sentence = r"microbatch_size is 8; .* 16 with config\.mesh\.critic_model = 1, or set that to 2"
    with pytest.raises(ConfigError, match=sentence):
        check_divides_data_axis(config(model=4, critic_model=1), 16)
    # Without critics their mesh is not used.
    check_divides_data_axis(make_config(0, mesh__model=4, mesh__critic_model=1), 16)


def test_the_mesh_uses_every_device_once():
    assert mesh_shape(MeshConfig(model=2), 8) == (4, 2)
    assert mesh_shape(MeshConfig(data=1, model=8), 8) == (1, 8)
    for data, model, advice in (
        (4, 4, "make data "),
        (-1, 3, "set config.mesh.model to a divisor of 8, such as 1, "),
        (-1, 16, "set config.mesh.model to a divisor of 8, such as 8, .* a multiple of 16 chips"),
        (-1, 0, "set config.mesh.model to 1 or more"),
        (-2, -4, "set config.mesh.model to 1 or more"),
    ):
        message = f"data={data}, model={model}, but there are 8 devices; {advice}"
        with pytest.raises(ConfigError, match=message):
            mesh_shape(MeshConfig(data=data, model=model), 8)
    split = MeshConfig(model=2, sampling_model=4)
    assert mesh_shape(split, 8, "sampling_model") == (2, 4)
    assert mesh_shape(split, 8, "critic_model") == mesh_shape(split, 8) == (4, 2)
    message = (
        r"mesh\.critic_model is 6, but there are 8 devices; .* a divisor of 8, such as 2, or to"
    )
    with pytest.raises(ConfigError, match=message):
        mesh_shape(MeshConfig(critic_model=6), 8, "critic_model")
    with pytest.raises(ConfigError, match="but there is 1 device; set"):
        mesh_shape(MeshConfig(model=2), 1)
