"""Every file in configs/ has a docstring with its command, and a valid config."""

import ast
import runpy
import sys
from pathlib import Path

import pytest

from asyppo_jax.config import from_config_dict
from asyppo_jax.config.checks import check_divides_data_axis
from asyppo_jax.models.pretrained import load_networks
from asyppo_jax.planning.flops import phase_costs
from configs import smollm2_arithmetic
from experiments.real_model import arithmetic

FILES = sorted((Path(__file__).parents[2] / "configs").glob("*.py"))
RUNS = [file for file in FILES if "def get_config" in file.read_text()]
PAPER = [file for file in RUNS if file.stem.startswith("qwen3_")]


@pytest.mark.parametrize("file", RUNS, ids=lambda file: file.stem)
def test_a_config_file_starts_with_its_command_and_has_a_valid_config(file):
    document = ast.get_docstring(ast.parse(file.read_text()))
    assert document and f"configs/{file.stem}.py" in document
    from_config_dict(runpy.run_path(str(file))["get_config"]())


@pytest.mark.parametrize("file", PAPER, ids=lambda file: file.stem)
def test_a_config_of_the_paper_has_the_papers_sizes_and_can_be_sharded_over_a_slice(file):
    config = from_config_dict(runpy.run_path(str(file))["get_config"]())
    check_divides_data_axis(config, 16)  # chips, eight of them along `model`
    assert config.sampling.num_prompts * config.sampling.group_size == 1024
    assert (config.sampling.group_size, config.sampling.max_completion_length) == (32, 8192)
    networks = load_networks(config, "tpu")
    billions = networks.actor.config.num_params / 1e9
    assert f"{config.actor.path.split('-')[1]}" in ("4B", "8B", "14B")
    assert billions == pytest.approx(float(config.actor.path.split("-")[1][:-1]), rel=0.07)
    costs = phase_costs(config, networks)
    assert all(cost.flops > 0 and cost.bytes > 0 for cost in costs.values())
    asyppo = "critics" in file.stem
    assert (config.algorithm.num_critics, config.algorithm.advantage_mask_fraction) == (
        (2, 0.2) if asyppo else (1, 0.0) if "symmetric" in file.stem else (0, 0.2)
    )


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_configs_import_only_the_package_and_each_other(file):
    modules = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module)
    roots = {module.partition(".")[0] for module in modules}
    assert roots <= {"asyppo_jax", "configs"} | sys.stdlib_module_names


def test_the_arithmetic_config_and_its_task_have_the_same_template():
    assert smollm2_arithmetic.TEMPLATE == arithmetic.TEMPLATE


def test_config_files_are_found():
    assert len(RUNS) > 10 and len(PAPER) == 10
