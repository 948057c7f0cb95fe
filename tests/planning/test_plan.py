"""Plans for TPU slices without TPUs: compiled if libtpu is installed, else a clear error."""

import dataclasses
import importlib.util
import json

import jax
import pytest

from asyppo_jax.config import ConfigError, MeshConfig, default_config, from_config_dict
from asyppo_jax.models.pretrained import load_networks
from asyppo_jax.planning import plan as planning
from asyppo_jax.planning.phases import phase_programs
from asyppo_jax.planning.plan import (
    GIB,
    PhasePlan,
    Plan,
    PlanError,
    plan,
    ratios,
    table,
    topology_devices,
)
from asyppo_jax.runtime.sharding import make_mesh

needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="the TPU compiler is missing: pip install 'jax[tpu]'",
)


def _config(**changes):
    """Two layers of Qwen3-1.7B, two critics with one layer of Qwen3-0.6B, short answers."""
    values = default_config()
    for network, size, layers in ((values.actor, "1.7b", 2), (values.critic, "0.6b", 1)):
        network.path = "Qwen/Qwen3"
        network.architecture = f"configs/architectures/qwen3-{size}.json"
        network.num_layers, network.dtype = layers, "bfloat16"
    values.sampling.num_prompts, values.sampling.group_size = 4, 8
    values.sampling.max_completion_length, values.prompt.max_length = 384, 128
    values.batching.actor_minibatch_size = values.batching.critic_minibatch_size = 16
    values.batching.microbatch_size = 4
    values.mesh.model = 2
    for name, value in changes.items():
        section, field = name.split("__")
        values[section][field] = value
    return from_config_dict(values)


def test_the_error_for_a_missing_compiler_has_the_install_command(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PlanError, match=r"not installed; run `pip install 'jax\[tpu\]'`"):
        topology_devices("v5p:2x2x1")


def test_the_error_for_an_unknown_chip_lists_the_known_ones(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    with pytest.raises(PlanError, match=r"'v9z:2x2' has an unknown kind .* v5e, v5p, v6e"):
        topology_devices("v9z:2x2")


def test_the_bytes_used_are_read_from_the_out_of_memory_message():
    read = planning._used_when_out_of_memory
    assert read("XLA:TPU ... Used 33.50G of 15.75G hbm. Exceeded", 9.0) == 33.5 * 2**30
    temporaries = "memory required for HLO temporaries (25.5G) exceeds available HBM (15.75G)."
    assert read(temporaries, 9.0) == 25.5 * 2**30 + 9
    with pytest.raises(PlanError, match="does not compile: INVALID"):
        read("INVALID: something else", 9.0)


def _plan(name, peaks, resident=0.0):
    phases = {
        phase: PhasePlan(True, float(peak * GIB), 1.0, 1.0, resident, 0.0, 1e15, 1e12, 2.0, 3.0, {})
        for phase, peak in peaks.items()
    }
    peak = max(p.peak_bytes for p in phases.values())
    return Plan(name, "v5p:2x2x1", 4, 95.0 * GIB, 5.0 * GIB, True, peak, phases)


def test_the_table_says_whether_it_fits_and_the_update_ratio_excludes_sampling():
    ours = _plan("a", {"decode": 40, "critics": 10, "actor": 30})
    other = _plan("b", {"decode": 50, "critics": 60, "actor": 40})
    assert "fits, 55.0 GiB to spare" in table(ours)
    text = ratios(ours, other)
    assert "updates   peak 0.500" in text and "program   peak 0.667" in text
    json.dumps(ours.as_dict())


@pytest.mark.tpu
@needs_compiler
def test_every_phase_is_compiled_for_a_slice_without_tpus():
    planned = plan(_config(), "v5e:2x2", name="small", report=lambda line: None)
    assert planned.fits and planned.chips == 4
    assert list(planned.phases) == ["prefill", "decode", "values", "critics", "actor"]
    for phase in planned.phases.values():
        on_chip = phase.argument_bytes + phase.resident_bytes
        assert planned.state_bytes * 0.99 < on_chip < planned.state_bytes * 1.2
        assert phase.temp_bytes > 0 and phase.seconds > 0 and phase.collectives
    decode = planned.phases["decode"]
    assert decode.moved_bytes < decode.compiled_bytes < 2 * decode.moved_bytes
    assert "decode as compiled moves" in table(planned)


@pytest.mark.tpu
@needs_compiler
def test_a_batch_that_the_data_axis_does_not_divide_is_refused():
    with pytest.raises(ConfigError, match="batch_size is 63; make it a multiple of the data axis"):
        plan(_config(evaluation__batch_size=63), "v5e:2x2", name="odd")


@pytest.mark.tpu
@needs_compiler
def test_gradients_reduced_once_per_minibatch_need_less_traffic():
    sent = {}
    for stage in (2, 1):
        config = _config(mesh__zero_stage=stage)
        found = plan(config, "v5e:2x2", name=f"stage {stage}", phases=["actor"])
        sent[stage] = sum(x["bytes"] for x in found.phases["actor"].collectives.values())
    assert sent[1] < sent[2] / 2  # 19.3 and 49.8 GB when this was written


@pytest.mark.tpu
@needs_compiler
def test_a_mesh_that_does_not_match_the_sides_of_the_slice_splits_a_side():
    mesh = make_mesh(MeshConfig(model=8), topology_devices("v6e:4x4"))
    assert dict(mesh.shape) == {"data": 2, "model": 8} and len(set(mesh.devices.flat)) == 16


@pytest.mark.tpu
@needs_compiler
def test_a_config_that_is_too_large_does_not_fit():
    config = _config(sampling__max_completion_length=16384)
    config = dataclasses.replace(
        config, sampling=dataclasses.replace(config.sampling, num_prompts=64)
    )
    planned = plan(config, "v5e:2x2", name="large", report=lambda line: None)
    assert not planned.fits and not planned.phases["decode"].fits
    assert planned.phases["decode"].peak_bytes > planned.hbm_bytes


@pytest.mark.tpu
@needs_compiler
def test_no_large_parameter_or_moment_of_the_compiled_update_is_on_every_chip():
    config = _config()
    mesh = make_mesh(config.mesh, topology_devices("v5e:2x2"))
    programs, _ = phase_programs(config, load_networks(config, "tpu"), mesh)
    for name, count in (("actor", 2), ("critics", 2)):
        program = programs[name]
        with jax.set_mesh(mesh):
            compiled = jax.jit(program.function, **program.jit).lower(*program.arguments).compile()
        placed = jax.tree.leaves(compiled.input_shardings[0][:count])
        shapes = jax.tree.leaves(program.arguments[:count])
        replicated = [
            shape.shape
            for sharding, shape in zip(placed, shapes, strict=True)
            if shape.size * 4 > 2**20 and sharding.is_fully_replicated
        ]
        assert not replicated


def test_the_error_for_an_unknown_phase_lists_the_known_ones():
    with pytest.raises(
        PlanError, match="'actors' is not a phase; choose from prefill, decode, values"
    ):
        plan(_config(), "v5e:2x2", name="small", phases=["actors"])
