"""Plans for TPU slices without TPUs: compiled if libtpu is installed, else a clear error."""

import dataclasses
import importlib.util

import jax
import pytest

from asyppo_jax.config import ConfigError, MeshConfig, default_config, from_config_dict
from asyppo_jax.models.pretrained import load_networks
from asyppo_jax.planning import plan as planning
from asyppo_jax.planning.collectives import COLLECTIVES
from asyppo_jax.planning.flops import Cost
from asyppo_jax.planning.hlo import read_program
from asyppo_jax.planning.phases import PhaseProgram, phase_programs
from asyppo_jax.planning.plan import plan, prepare
from asyppo_jax.planning.report import table
from asyppo_jax.planning.topology import CHIPS, PlanError, topology_devices
from asyppo_jax.runtime.sharding import make_mesh, replicated

needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="the TPU compiler is missing: pip install -e '.[tpu]'",
)


GRPO = {"algorithm__num_critics": 0, "algorithm__advantages": "grpo"}


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


def test_the_bytes_used_are_read_from_the_out_of_memory_message():
    read = planning._used_when_out_of_memory
    assert read("XLA:TPU ... Used 33.50G of 15.75G hbm. Exceeded") == 33.5 * 2**30
    # jit(lambda a, b: (a + 1, b + 1)) of two donated arrays of 8 GiB, on one v5e chip.
    message = (
        "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory "
        "required for HLO temporaries (16.00G) exceeds available HBM (15.75G). HLO module: jit_f."
    )
    assert read(message) == 16 * 2**30
    with pytest.raises(PlanError, match="does not compile: INVALID"):
        read("INVALID: something else")


@pytest.mark.tpu
@needs_compiler
def test_a_program_that_the_compiler_refuses_does_not_fit():
    # An array of 7.93 GiB and a result of that size: less than a chip has, but more than its limit.
    mesh = make_mesh(MeshConfig(), topology_devices("v5e:1x1"))
    argument = jax.ShapeDtypeStruct((2030, 1024, 1024), "float32", sharding=replicated(mesh))
    program = PhaseProgram(lambda a: a + 1, (argument,))
    planned = planning._plan_phase(program, Cost(1.0, 1.0), CHIPS["v5e"], mesh)
    assert not planned.fits and planned.peak_bytes / 2**30 == pytest.approx(15.86, abs=0.01)
    assert planned.temp_bytes == pytest.approx(planned.argument_bytes, rel=1e-3)  # the result


@pytest.mark.tpu
@needs_compiler
def test_a_phase_is_planned_for_chips_of_two_devices():
    planned = plan(
        _config(), "tpu7x:2x2x1", name="small", phases=["actor"], report=lambda line: None
    )
    assert (planned.chips, planned.devices) == (4, 8)
    assert "(4 chips of 2 devices; 'per chip' is per device, each of 94.74 GiB)" in table(planned)


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
def test_on_v6e_weights_are_gathered_while_the_chip_computes_if_that_is_asked_for():
    def waits(*, is_async):
        config = _config(
            mesh__model=1,
            mesh__async_gathers=is_async,
            sampling__num_prompts=8,
            sampling__max_completion_length=1920,  # enough to compute beside a gather
            batching__microbatch_size=8,
        )
        planned = plan(config, "v6e:2x4", name="small", phases=["actor"], report=lambda line: None)
        return planned.phases["actor"].waiting_seconds

    assert waits(is_async=True) < 0.97 * waits(is_async=False)


@pytest.mark.tpu
@needs_compiler
def test_each_phase_is_compiled_on_its_own_mesh_and_the_resharding_is_counted():
    meshes = {"mesh__model": 1, "mesh__sampling_model": 4, "mesh__critic_model": 2}
    planned = plan(_config(**meshes), "v5e:2x2", name="small", report=lambda line: None)
    names = ["reshard", "prefill", "decode", "values", "critics", "actor"]
    assert planned.fits and list(planned.phases) == names
    reshard, decode = planned.phases["reshard"], planned.phases["decode"]
    sent = sum(x["bytes"] for x in reshard.collectives.values())
    # Each chip sends most of its quarter of the parameters in bfloat16, and may pad it.
    assert 0.5 < sent / (decode.argument_bytes - 2**20) < 3
    assert reshard.seconds > 0 and reshard.flops == 0
    # The arguments are a copy; the state stays, but for its clock.
    assert decode.resident_bytes == pytest.approx(planned.state_bytes)


@pytest.mark.tpu
@needs_compiler
def test_a_batch_that_the_data_axis_does_not_divide_is_refused():
    message = "odd on v5e:2x2: .*batch_size is 63; make it a multiple of the data axis"
    with pytest.raises(ConfigError, match=message):
        plan(_config(evaluation__batch_size=63), "v5e:2x2", name="odd")


@pytest.mark.tpu
@needs_compiler
def test_gradients_reduced_once_per_minibatch_need_less_traffic():
    sent = {}
    for stage in (2, 1):
        config = _config(mesh__zero_stage=stage)
        found = plan(config, "v5e:2x2", name=f"stage {stage}", phases=["actor"])
        sent[stage] = sum(x["bytes"] for x in found.phases["actor"].collectives.values())
    assert sent[1] < 0.7 * sent[2]  # 10.2 and 17.9 GB with libtpu 0.0.50.1


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
def test_the_head_is_gathered_and_its_gradient_reduced_once_per_microbatch():
    config = _config()
    mesh = make_mesh(config.mesh, topology_devices("v5e:2x2"))
    program = phase_programs(config, load_networks(config, "tpu"), mesh)[0]["actor"]
    with jax.set_mesh(mesh):
        compiled = jax.jit(program.function, **program.jit).lower(*program.arguments).compile()
    parsed = read_program(compiled.as_text() or "", unknown_trips=program.trips)
    microbatches = config.algorithm.actor_epochs * 32 / 4  # each has 3 chunks of positions
    runs = [
        parsed.runs[name]
        for name, instructions in parsed.computations.items()
        for i in instructions
        if i.opcode.removesuffix("-start") in COLLECTIVES and name in parsed.runs
        if i.bytes > 2 * 2048 * 151_936 / 4  # more than a chip's part of the head in bfloat16
    ]
    assert runs and max(runs) == microbatches


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


@pytest.fixture
def one_device(monkeypatch):
    """A slice has one chip: what takes no compilation needs no TPU compiler."""
    monkeypatch.setattr(planning, "topology_devices", lambda name: jax.devices()[:1])


@pytest.mark.parametrize(
    ("changes", "phases", "compiled", "not_compiled"),
    [
        ({}, "", "prefill decode values critics actor", ""),
        ({}, "values", "values", "prefill decode critics actor"),
        ({}, "step", "step", "prefill decode"),
        ({}, "prefill decode step", "prefill decode step", ""),
        ({"mesh__offload": "idle"}, "actor step", "actor", "prefill decode values critics"),
        (GRPO, "values actor", "actor", "prefill decode"),
        (GRPO | {"algorithm__kl_coef": 0.1}, "", "prefill decode reference actor", ""),
        (GRPO | {"algorithm__kl_coef": 0.1}, "step", "step", "prefill decode"),
    ],
)
def test_a_plan_knows_the_phases_of_the_run_that_it_does_not_compile(
    one_device, changes, phases, compiled, not_compiled
):
    config = _config(mesh__model=1, **changes)
    prepared = prepare(config, "v5e:2x2", name="small", phases=phases.split())
    assert prepared.phases == tuple(compiled.split())
    assert prepared.not_compiled == tuple(not_compiled.split())


def test_errors_that_need_no_compilation_name_the_config_and_the_fix(one_device):
    with pytest.raises(PlanError, match="'actors' is not a phase; choose from reshard, prefill"):
        prepare(_config(), "v5e:2x2", name="small", phases=["actors"])
    message = "grpo has none of the phases values, critics; it has prefill, decode, actor, step"
    with pytest.raises(PlanError, match=message):
        prepare(_config(**GRPO), "v5e:2x2", name="grpo", phases=["values", "critics"])
    with pytest.raises(ConfigError, match=r"small on v5e:2x2: config\.mesh is data=-1"):
        prepare(_config(), "v5e:2x2", name="small")
