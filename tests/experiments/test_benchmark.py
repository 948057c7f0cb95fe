"""The benchmark's formulas against counts by hand, and its error messages."""

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
    """FLOPs of the layers for `tokens` tokens that see `keys` keys in total; 4 heads of 16."""
    return 2 * LAYERS * tokens + 4 * 3 * 4 * 16 * keys


def test_the_prefill_computes_every_prompt_once():
    assert work.prefill_work(QWEN3, SETTING).flops == 2 * (trunk(3, 1 + 2 + 3) + HEAD)


def test_decoding_feeds_back_every_token_but_the_last_and_each_sees_all_earlier_ones():
    # The rows of 5 feed back 4 tokens, which see 4, 5, 6 and 7 keys; the row of 2 one, with 4 keys.
    expected = 2 * (trunk(4, 4 + 5 + 6 + 7) + 4 * HEAD) + trunk(1, 4) + HEAD
    assert work.decode_work(QWEN3, SETTING).flops == expected


def test_decoding_reads_parameters_once_per_step_and_a_groups_prompt_once():
    bytes_per_token = 2 * 3 * 2 * 16 * 4
    completion_tokens = 2 * (1 + 2 + 3 + 4) + 1
    prompt_tokens = (4 + 4 + 1) * 3 / 2
    cache_bytes = (completion_tokens + prompt_tokens) * bytes_per_token
    expected = 4 * work.parameter_bytes(QWEN3) + cache_bytes
    assert work.decode_work(QWEN3, SETTING).bytes == expected
    # The four rows decode nine tokens, for which two slots need five steps instead of four.
    two_slots = dataclasses.replace(SETTING, slots=2)
    more = work.decode_work(QWEN3, two_slots).bytes - work.decode_work(QWEN3, SETTING).bytes
    assert more == work.parameter_bytes(QWEN3)


def test_kernels_read_the_prompt_for_every_row_and_bfloat16_halves_the_bytes():
    shared, separate = (work.decode_work(QWEN3, SETTING, shared=s) for s in (True, False))
    bytes_per_token = 2 * 3 * 2 * 16 * 4
    assert separate.flops == shared.flops
    assert separate.bytes - shared.bytes == (4 + 4 + 1) * 3 / 2 * bytes_per_token
    bfloat16 = dataclasses.replace(SETTING, dtype="bfloat16")
    assert work.decode_work(QWEN3, bfloat16, shared=False).bytes == separate.bytes / 2


def test_an_update_counts_three_passes_over_real_tokens_and_the_head_on_completions():
    rows = 2 * trunk(8, 36) + trunk(5, 15) + trunk(4, 10)
    assert work.actor_work(QWEN3, SETTING).flops == 3 * (rows + 13 * HEAD)
    assert work.critics_work(QWEN3, SETTING).flops == 3 * rows
    two = dataclasses.replace(SETTING, num_critics=2)
    assert work.values_work(QWEN3, two).flops == 2 * rows
    assert work.critics_work(QWEN3, two).flops == 3 * rows


def test_the_limit_is_the_slower_of_products_and_reads():
    example = work.Work(flops=3e9, bytes=2e9)
    assert example.seconds(gflops=1.0, gigabytes=1.0) == 3.0
    assert example.seconds(gflops=10.0, gigabytes=1.0) == 2.0


def test_ragged_lengths_depend_on_their_seed_and_have_the_declared_median():
    lengths = ragged_lengths(0, 4001, 192)
    assert lengths == ragged_lengths(0, 4001, 192) != ragged_lengths(1, 4001, 192)
    assert min(lengths) >= 1 and max(lengths) == 192
    assert sorted(lengths)[2000] == pytest.approx(40, abs=3)


def test_real_tokens_count_the_prompt_for_every_response():
    assert SETTING.real_tokens == 4 * 3 + 13


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2", "cannot be read as JSON"),
        ("[1, 2]", "must be a list of 3 numbers"),
        ("[1, 2, 9]", "has 9; a length must be an integer from 1 to --completion=8"),
        ("[1, 2, 0.5]", "has 0.5"),
        ("[1, 2, true]", "has True"),
    ],
)
def test_a_bad_file_of_lengths_gives_a_clear_error(tmp_path, text, message):
    file = tmp_path / "lengths.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_lengths(str(file), 3, 8)
    file.write_text("[1, 8, 3]")
    assert read_lengths(str(file), 3, 8) == (1, 8, 3)


def test_masks_are_off_with_one_critic_and_on_with_two():
    one = make_config(SETTING).algorithm
    two = make_config(dataclasses.replace(SETTING, num_critics=2)).algorithm
    assert one.advantage_mask_fraction == one.entropy_mask_fraction == 0
    assert two.advantage_mask_fraction == two.entropy_mask_fraction == 0.2


@pytest.mark.parametrize(
    ("devices", "phase", "message"),
    [
        (2, "step", "works for `sample` and `update` only; step runs on one"),
        (3, "sample", "does not divide --sequences / --group, which is 2;"),
        (3, "update", "does not divide --microbatch / --rows_per_prompt, which is 2;"),
    ],
)
def test_rows_that_cannot_be_sharded_give_a_clear_error(monkeypatch, devices, phase, message):
    monkeypatch.delenv("JAX_NUM_CPU_DEVICES", raising=False)
    with pytest.raises(ConfigError, match=f"--devices={devices} {message}"):
        spread_over(devices, phase, SETTING)
    assert "JAX_NUM_CPU_DEVICES" not in os.environ
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "")  # monkeypatch then restores the variable
    spread_over(2, "sample", SETTING)
    assert os.environ["JAX_NUM_CPU_DEVICES"] == "2"


def test_a_peer_without_a_program_for_the_phase_is_an_error():
    assert program_of("tunix", "update").is_file()
    with pytest.raises(ConfigError, match="there is no peer torch for 'sample'"):
        program_of("torch", "sample")


def test_a_mini_critic_of_half_width_and_depth_has_an_eighth_of_the_layers():
    full, half = architecture(8, 256, 4096), architecture(4, 128, 4096)
    assert layer_params(half) == layer_params(full) / 8


def test_a_profile_sums_operations_by_name_and_measures_idle_time():
    spans = [("fusion.1", 0.0, 2e6), ("fusion_12", 1e6, 4e6), ("gemm_a_64x5_NN", 6e6, 10e6)]
    table = summary(spans, on_device=True)
    assert [row["name"] for row in table] == ["fusion", "gemm_a_64x5_NN", "(idle)"]
    assert [row["ms"] for row in table] == [5.0, 4.0, 2.0]
    assert table[0]["calls"] == 2 and table[0]["share"] == 0.5
    assert {row["name"] for row in summary(spans, on_device=False)} == {"fusion", "gemm_a_64x5_NN"}
    assert summary([], on_device=True) == []
    lines = describe_profile(table * 20)
    assert len(lines) == 1 + MOST_LINES + 1 and lines[-1].endswith("35 others")


@pytest.mark.slow  # three programs to compile
def test_a_model_without_weights_gets_random_ones_and_a_run_can_be_profiled(tmp_path):
    values = {
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
    file.write_text(json.dumps(values))
    setting = dataclasses.replace(SETTING, model=str(file), lengths=(5,) * 4)
    result = measure("sample", setting, cores=1, repeats=1, profile=str(tmp_path / "trace"))
    assert result["tokens"] == 20 and result["decode_gb_per_s"] > 0
    assert result["profile"] and all(row["ms"] > 0 for row in result["profile"])
    assert "mfu_by_phase" not in result  # there is no data sheet for a CPU
    assert "TFLOP/s" in describe(result)


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["update", "step"])
def test_a_measurement_has_all_results_and_can_be_printed_as_json(tmp_path, phase):
    make_model(str(tmp_path), layers=1, width=64, vocabulary=64)
    setting = dataclasses.replace(SETTING, model=str(tmp_path), lengths=(5,) * 4)
    result = measure(phase, setting, cores=1, repeats=2)
    assert json.loads(json.dumps(result)) == result
    names = {"tokens_per_s", "seconds_median", "seconds_least", "compile_seconds"}
    assert names | {"peak_memory_gb", "share_of_limit", "slot_use"} <= result.keys()
    assert result["tokens"] == 4 * 8 and result["slot_use"] == 1
    phases = ["critics", "actor"]
    phases = phases if phase == "update" else ["sample", "values", "experience", *phases]
    assert list(result["phases"]) == phases
    assert result["seconds_least"] <= result["seconds_median"]
