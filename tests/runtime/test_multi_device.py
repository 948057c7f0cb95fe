"""Eight simulated devices give the same tokens, masks and step as one device.

Each number of devices needs its own process, because XLA reads the number once.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.simulated import run_module


def _run(devices: int, model: int, setting: str, tmp_path: Path) -> dict:
    out = tmp_path / f"{devices}x{model}.json"
    run_module("tests.multi_device_program", str(model), setting, str(out), devices=devices)
    return json.loads(out.read_text())


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
    return _run(1, 1, "plain", tmp_path_factory.mktemp("one_device"))


@pytest.mark.parametrize(
    ("model", "setting"),
    [
        pytest.param(1, "packed", marks=pytest.mark.slow),
        pytest.param(2, "gathered", marks=pytest.mark.slow),
        pytest.param(2, "local", marks=pytest.mark.slow),
        pytest.param(2, "offloaded", marks=pytest.mark.slow),
        (2, "plain"),
        pytest.param(1, "plain+meshes", marks=pytest.mark.slow),
        pytest.param(1, "gathered+meshes", marks=pytest.mark.slow),
        pytest.param(1, "local+meshes", marks=pytest.mark.slow),
    ],
)
def test_eight_devices_equal_one(one_device, model, setting, tmp_path):
    eight = _run(8, model, setting, tmp_path)
    # Other rows share a microbatch, in which these metrics rank the tokens.
    if setting == "packed" or setting.startswith("local"):
        for name in ("ensemble/low_std_low_entropy", "ensemble/high_std_high_entropy"):
            eight["metrics"][name] = one_device["metrics"][name]
    _assert_equal(one_device, eight)


@pytest.mark.slow
def test_eight_devices_equal_one_if_rows_share_prompts(tmp_path):
    """Complete groups per row give other minibatches, so the single device uses them too."""
    _assert_equal(_run(1, 1, "shared_prompts", tmp_path), _run(8, 2, "shared_prompts", tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize(("model", "meshes"), [(2, ""), (8, "+meshes")])
def test_eight_devices_equal_one_with_a_reference(model, meshes, tmp_path):
    one = _run(1, 1, "reference", tmp_path)
    eight = _run(8, model, f"reference{meshes}", tmp_path)
    _assert_equal(one, eight)
    assert one["metrics"]["actor/kl_to_reference"] > 1e-6


@pytest.mark.slow
@pytest.mark.parametrize(("model", "meshes"), [(2, ""), (1, "+meshes")])
def test_eight_devices_equal_one_with_other_values_and_losses(model, meshes, tmp_path):
    one = _run(1, 1, "options", tmp_path)
    eight = _run(8, model, f"options{meshes}", tmp_path)
    _assert_equal(one, eight)
    assert one["metrics"]["actor/positive_nll"] > 0
    assert one["metrics"]["actor/kl_to_reference"] > 1e-6


def _assert_equal(one: dict, eight: dict) -> None:
    assert eight["devices"] == 8 and one["devices"] == 1
    assert eight["tokens"] == one["tokens"]
    assert eight["masks"] == one["masks"]
    for name, value in one["metrics"].items():
        np.testing.assert_allclose(
            eight["metrics"][name], value, rtol=1e-3, atol=1e-5, err_msg=name
        )
    for left, right in zip(one["params"], eight["params"], strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-3, atol=1e-5)
    assert eight["sharded_leaves"] > 10
