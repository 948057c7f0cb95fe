"""The search for settings, with a stand-in for the compiler."""

import dataclasses
import runpy

import jax
import pytest

from asyppo_jax.planning import candidates as module
from asyppo_jax.planning.candidates import candidates, network_seconds, setting_of
from asyppo_jax.planning.plan import PhasePlan
from asyppo_jax.planning.topology import PlanError
from asyppo_jax.planning.tune import Compiled, as_json, config_text, key_of, search
from tests.planning.test_plan import _config

PHASES = ("critics", "actor")


@pytest.fixture
def setting(monkeypatch):
    monkeypatch.setattr(module, "topology_devices", lambda name: jax.devices()[:1] * 4)
    return setting_of(_config(), "v5e:2x2", name="configs/small.py", phases=PHASES)


class Compiler:
    """Plans that take the formula's seconds twice, for `model` = 4 three times."""

    def __init__(self, setting, fits=lambda candidate: True):
        self.fits, self.calls = fits, []
        self.least, self.setting = candidates(setting)[0], setting

    def seconds(self, candidate, phase):
        waits = network_seconds(candidate, self.setting) if phase == "actor" else 0.0
        return (self.least[candidate][phase] + waits) * (3 if candidate.model == 4 else 2)

    def __call__(self, candidate, phase):
        self.calls.append((candidate, phase))
        seconds = self.seconds(candidate, phase)
        return PhasePlan(self.fits(candidate), 2.0**30, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, seconds, 3.0)


def _search(setting, compiler, file, is_over=lambda: False):
    return search(setting, Compiled(file), compiler, is_over=is_over, report=lambda line: None)


def test_the_shortest_step_is_found_without_compiling_everything(setting, tmp_path):
    compiler = Compiler(setting)
    best, *others = _search(setting, compiler, tmp_path / "compiled.jsonl")
    total = {c: sum(compiler.seconds(c, phase) for phase in PHASES) for c in compiler.least}
    assert best.seconds == pytest.approx(min(total.values()))
    assert best.candidate == min(total, key=lambda c: total[c])
    assert all(other.seconds >= best.seconds for other in others)
    assert len(compiler.calls) < len(PHASES) * len(total)


def test_the_meshes_of_phases_are_searched_separately(setting, tmp_path):
    """Decoding is quick on four chips along `model`, and the critics and the actor on one."""
    setting = dataclasses.replace(setting, phases=("decode", *PHASES))
    calls = []

    def compile_phase(candidate, phase):
        calls.append(key_of(phase, candidate, setting))
        model = candidate.model_of(phase)
        seconds = {"decode": 40 / model, "reshard": 0.5}.get(phase, 10.0 * model)
        return PhasePlan(True, 2.0**30, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, seconds, 3.0)

    best, *_ = _search(setting, compile_phase, tmp_path / "compiled.jsonl")
    chosen = best.candidate
    assert (chosen.model, chosen.sampling_model, chosen.critic_model) == (1, 4, 1)
    assert best.seconds == 10 + 0.5 + 10 + 10 and "reshard" in best.phases
    assert (best.changes["mesh.sampling_model"], best.changes["mesh.critic_model"]) == (4, 0)
    assert len(calls) == len(set(calls))  # each program once
    assert len([key for key in calls if key.startswith("decode")]) <= 3


def test_a_search_that_is_stopped_goes_on_where_it_stopped(setting, tmp_path):
    file, compiler = tmp_path / "compiled.jsonl", Compiler(setting)
    expected = _search(setting, compiler, tmp_path / "other.jsonl")
    count = len(compiler.calls)
    compiler.calls.clear()
    assert _search(setting, compiler, file, is_over=lambda: len(compiler.calls) >= 2)
    with file.open("a") as lines:
        lines.write('{"key": "cut o')  # killed while it wrote
    assert _search(setting, compiler, file) == expected
    assert len(compiler.calls) == count
    compiler.calls.clear()
    # All is in the file, also for a search without time.
    assert _search(setting, compiler, file, is_over=lambda: True)[0] == expected[0]
    assert not compiler.calls


def test_a_candidate_leaves_a_tenth_of_the_memory(setting, tmp_path):
    limit = setting.chip.hbm_bytes
    for share, is_enough in ((0.89, True), (0.91, False)):

        def compile_phase(candidate, phase, peak=share * limit):
            return PhasePlan(True, peak, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 3.0)

        lines = []
        results = search(
            setting,
            Compiled(tmp_path / f"{share}.jsonl"),
            compile_phase,
            is_over=lambda: False,
            report=lines.append,
        )
        assert bool(results) == is_enough
        assert any("leaves 9.0% of the memory" in line for line in lines) != is_enough


def test_what_does_not_fit_or_does_not_compile_is_no_result(setting, tmp_path):
    small = Compiler(setting, fits=lambda candidate: candidate.zero_stage == 3)
    results = _search(setting, small, tmp_path / "small.jsonl")
    assert results and {result.candidate.zero_stage for result in results} == {3}

    def broken(candidate, phase):
        raise PlanError("a phase does not compile")

    assert _search(setting, broken, tmp_path / "broken.jsonl") == []


def test_the_config_file_has_the_settings_and_says_where_they_are_from(setting, tmp_path):
    results = _search(setting, Compiler(setting), tmp_path / "compiled.jsonl")
    (tmp_path / "base.py").write_text(
        "from asyppo_jax.config import default_config\n\n\n"
        "def get_config():\n"
        "    return default_config()\n"
    )
    text = config_text(results, setting, "base.py", "python -m x", {"sampling.slots": 7})
    (tmp_path / "tuned.py").write_text(text)
    config = runpy.run_path(str(tmp_path / "tuned.py"))["get_config"]()
    assert config.sampling.slots == 7
    best = results[0]
    assert config.mesh.model == best.candidate.model and config.mesh.data == -1
    assert config.batching.microbatch_size == best.changes["batching.microbatch_size"]
    assert str(best) in text and "python -m x" in text and "on v5e:2x2" in text
    (first, *_) = as_json(results)
    assert first["settings"] == best.changes and set(first["phases"]) == set(PHASES)
