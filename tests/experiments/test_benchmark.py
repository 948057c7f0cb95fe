"""The benchmark's arithmetic, against counts by hand, and what it refuses."""

import dataclasses
import json
import os

import pytest

from asyppo_jax.config import ConfigError
from asyppo_jax.planning.flops import layer_params
from experiments.benchmark import work
from experiments.benchmark.__main__ import spread_over
from experiments.benchmark.make_model import architecture, make_model
from experiments.benchmark.measure import describe, measure
from experiments.benchmark.peers import program_of
from experiments.benchmark.profile import MOST_LINES, describe_profile, summary
from experiments.benchmark.setting import Setting, make_config, ragged_lengths, read_lengths
from tests.tiny import QWEN3

SETTING = Setting(
    model="model",
    critic="",
    num_critics=1,
    group_size=2,
    prompt=3,
    completion=5,
    lengths=(5, 2, 1, 5),
    microbatch=2,
    packing=False,
    rows_per_prompt=1,
    peer_microbatch=2,
    slots=0,
)
# 3 layers; q, k, v and o of 32 x 64, 32 x 32, 32 x 32 and 64 x 32; three of 32 x 48.
LAYERS = 3 * (32 * 64 + 2 * 32 * 32 + 64 * 32 + 3 * 32 * 48)
HEAD = 2 * 32 * 61


def trunk(tokens, keys):
    """FLOPs of so many tokens that look at so many keys together: 4 heads of 16."""
    return 2 * LAYERS * tokens + 4 * 3 * 4 * 16 * keys


def test_the_prefill_meets_every_prompt_once():
    assert work.prefill_work(QWEN3, SETTING).flops == 2 * (trunk(3, 1 + 2 + 3) + HEAD)


def test_decoding_feeds_every_token_but_the_last_and_sees_all_before_it():
    # The row of 5 feeds 4 tokens, which see 4, 5, 6 and 7 keys; that of 2 one, which sees 4.
    expected = 2 * (trunk(4, 4 + 5 + 6 + 7) + 4 * HEAD) + trunk(1, 4) + HEAD
    assert work.decode_work(QWEN3, SETTING).flops == expected


def test_decoding_reads_parameters_once_a_turn_and_a_groups_prompt_once():
    keys_of_a_token = 2 * 3 * 2 * 16 * 4
    own = 2 * (1 + 2 + 3 + 4) + 1
    prompts = (4 + 4 + 1) * 3 / 2
    expected = 4 * work.parameter_bytes(QWEN3) + (own + prompts) * keys_of_a_token
    assert work.decode_work(QWEN3, SETTING).bytes == expected
    # Two slots cannot do the nine turns of the four rows in four.
    two = dataclasses.replace(SETTING, slots=2)
    more = work.decode_work(QWEN3, two).bytes - work.decode_work(QWEN3, SETTING).bytes
    assert more == work.parameter_bytes(QWEN3)


def test_kernels_read_every_rows_own_prompt_and_bfloat16_is_half_as_wide():
    shared, own = (work.decode_work(QWEN3, SETTING, shared=s) for s in (True, False))
    keys_of_a_token = 2 * 3 * 2 * 16 * 4
    assert own.flops == shared.flops
    assert own.bytes - shared.bytes == (4 + 4 + 1) * 3 / 2 * keys_of_a_token
    half = dataclasses.replace(SETTING, dtype="bfloat16")
    assert work.decode_work(QWEN3, half, shared=False).bytes == own.bytes / 2


def test_an_update_is_three_passes_over_real_tokens_and_the_head_over_completions():
    rows = 2 * trunk(8, 36) + trunk(5, 15) + trunk(4, 10)
    assert work.actor_work(QWEN3, SETTING).flops == 3 * (rows + 13 * HEAD)
    assert work.critics_work(QWEN3, SETTING).flops == 3 * rows
    two = dataclasses.replace(SETTING, num_critics=2)
    assert work.values_work(QWEN3, two).flops == 2 * rows
    assert work.critics_work(QWEN3, two).flops == 3 * rows


def test_the_limit_is_the_slower_of_products_and_reads():
    some = work.Work(flops=3e9, bytes=2e9)
    assert some.seconds(gflops=1.0, gigabytes=1.0) == 3.0
    assert some.seconds(gflops=10.0, gigabytes=1.0) == 2.0


def test_ragged_lengths_are_those_of_their_seed_and_their_median():
    lengths = ragged_lengths(0, 4001, 192)
    assert lengths == ragged_lengths(0, 4001, 192) != ragged_lengths(1, 4001, 192)
    assert min(lengths) >= 1 and max(lengths) == 192
    assert sorted(lengths)[2000] == pytest.approx(40, abs=3)


def test_real_tokens_count_a_prompt_for_every_response():
    assert SETTING.real_tokens == 4 * 3 + 13


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[1, 2", "cannot be read as JSON"),
        ("[1, 2]", "must hold a list of 3 numbers"),
        ("[1, 2, 9]", "holds 9; a length is a whole number from 1 to --completion=8"),
        ("[1, 2, 0.5]", "holds 0.5"),
        ("[1, 2, true]", "holds True"),
    ],
)
def test_a_bad_file_of_lengths_is_refused_in_words(tmp_path, text, told):
    file = tmp_path / "lengths.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=told):
        read_lengths(str(file), 3, 8)
    file.write_text("[1, 8, 3]")
    assert read_lengths(str(file), 3, 8) == (1, 8, 3)


def test_one_critic_has_no_masks_and_two_have():
    one = make_config(SETTING).algorithm
    two = make_config(dataclasses.replace(SETTING, num_critics=2)).algorithm
    assert one.advantage_mask_fraction == one.entropy_mask_fraction == 0
    assert two.advantage_mask_fraction == two.entropy_mask_fraction == 0.2


@pytest.mark.parametrize(
    ("devices", "phase", "said"),
    [
        (2, "step", "spreads `sample` and `update`; step runs on one"),
        (3, "sample", "spreads --sequences / --group, which is 2;"),
        (3, "update", "spreads --microbatch / --rows_per_prompt, which is 2;"),
    ],
)
def test_rows_that_cannot_be_spread_are_refused_in_words(monkeypatch, devices, phase, said):
    monkeypatch.delenv("JAX_NUM_CPU_DEVICES", raising=False)
    with pytest.raises(ConfigError, match=f"--devices={devices} {said}"):
        spread_over(devices, phase, SETTING)
    assert "JAX_NUM_CPU_DEVICES" not in os.environ
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "")  # so that what follows is undone
    spread_over(2, "sample", SETTING)
    assert os.environ["JAX_NUM_CPU_DEVICES"] == "2"


def test_a_peer_is_named_for_the_phases_that_it_has():
    assert program_of("tunix", "update").is_file()
    with pytest.raises(ConfigError, match="torch cannot be run beside 'sample'"):
        program_of("torch", "sample")


def test_a_mini_critic_of_half_width_and_depth_has_an_eighth_of_the_layers():
    whole, half = architecture(8, 256, 4096), architecture(4, 128, 4096)
    assert layer_params(half) == layer_params(whole) / 8


def test_a_profile_adds_up_operations_by_name_and_finds_the_time_between_them():
    spans = [("fusion.1", 0.0, 2e6), ("fusion_12", 1e6, 4e6), ("gemm_a_64x5_NN", 6e6, 10e6)]
    table = summary(spans, on_device=True)
    assert [row["name"] for row in table] == ["fusion", "gemm_a_64x5_NN", "(idle)"]
    assert [row["ms"] for row in table] == [5.0, 4.0, 2.0]
    assert table[0]["calls"] == 2 and table[0]["share"] == 0.5
    assert {row["name"] for row in summary(spans, on_device=False)} == {"fusion", "gemm_a_64x5_NN"}
    assert summary([], on_device=True) == []
    lines = describe_profile(table * 20)
    assert len(lines) == 1 + MOST_LINES + 1 and lines[-1].endswith("35 others")


def test_weights_of_a_shape_alone_are_drawn_and_a_run_of_them_is_profiled(tmp_path):
    shape = {
        "model_type": "qwen3",
        "vocab_size": 61,
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "intermediate_size": 32,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e4,
        "tie_word_embeddings": True,
    }
    file = tmp_path / "config.json"
    file.write_text(json.dumps(shape))
    setting = dataclasses.replace(SETTING, model=str(file), lengths=(5,) * 4)
    result = measure("sample", setting, cores=1, repeats=1, profile=str(tmp_path / "trace"))
    assert result["tokens"] == 20 and result["decode_gb_per_s"] > 0
    assert result["profile"] and all(row["ms"] > 0 for row in result["profile"])
    assert "mfu_by_phase" not in result  # of a CPU there is no data sheet
    assert "TFLOP/s" in describe(result)


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["update", "step"])
def test_a_measurement_holds_every_figure_and_fits_in_a_line(tmp_path, phase):
    make_model(str(tmp_path), layers=1, width=64, vocabulary=64)
    setting = dataclasses.replace(SETTING, model=str(tmp_path), lengths=(5,) * 4)
    result = measure(phase, setting, cores=1, repeats=2)
    assert json.loads(json.dumps(result)) == result
    wanted = {"tokens_per_s", "seconds_median", "seconds_least", "compile_seconds"}
    assert wanted | {"peak_memory_gb", "share_of_limit", "slot_use"} <= result.keys()
    assert result["tokens"] == 4 * 8 and result["slot_use"] == 1
    parts = ["critics", "actor"]
    parts = parts if phase == "update" else ["sample", "values", "experience", *parts]
    assert list(result["phases"]) == parts
    assert result["seconds_least"] <= result["seconds_median"]
