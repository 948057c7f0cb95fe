"""The text of a plan: its verdict is about the compiled phases alone."""

import dataclasses
import json

from asyppo_jax.planning.plan import PhasePlan, Plan
from asyppo_jax.planning.report import GIB, quantity, ratios, search_verdict, table, verdict


def _plan(name, peaks, not_compiled=(), devices=4):
    phases = {
        phase: PhasePlan(peak <= 95, peak * GIB, 1.0, 1.0, 0.0, 0.0, 1e15, 1e12, 2.0, 3.0)
        for phase, peak in peaks.items()
    }
    peak = max(p.peak_bytes for p in phases.values())
    return Plan(
        name, "v5p:2x2x1", 4, 95.0 * GIB, 5.0 * GIB, peak, phases, not_compiled, 200, devices
    )


ALL = {"prefill": 10.0, "decode": 40.0, "values": 5.0, "critics": 10.0, "actor": 30.0}
REST = ("prefill", "decode", "critics", "actor")


def test_a_plan_of_all_phases_says_that_the_config_fits():
    planned = _plan("a", ALL)
    assert planned.fits is True
    assert verdict(planned) == "fits, 55.0 GiB to spare"
    assert "a on v5p:2x2x1 (4 chips of 95 GiB): fits, 55.0 GiB to spare; the" in table(planned)
    assert search_verdict(planned).startswith("a fits in v5p:2x2x1, the first of these slices")


def test_a_plan_of_some_phases_claims_nothing_about_the_others():
    one = _plan("a", {"values": 5.0}, REST)
    two = _plan("a", {"values": 5.0, "actor": 30.0}, ("decode",))
    assert one.fits is None and two.fits is None
    rest = "prefill, decode, critics, actor were not compiled"
    assert verdict(one) == f"values fits, 90.0 GiB to spare; {rest}"
    assert verdict(two) == "values, actor fit, 65.0 GiB to spare; decode was not compiled"
    text = search_verdict(one)
    assert text.startswith("values fits in v5p:2x2x1") and rest in text
    assert text.endswith("so a as a whole may need a larger slice") and "a fits" not in text


def test_one_compiled_phase_that_does_not_fit_decides():
    planned = _plan("a", {"values": 98.0}, REST)
    assert planned.fits is False
    assert verdict(planned).startswith("does not fit by 3.0 GiB; prefill, decode, critics, actor")
    assert verdict(_plan("a", ALL | {"decode": 98.0})) == "does not fit by 3.0 GiB"
    assert search_verdict(planned) == "a fits in none of these slices"


def test_json_has_the_compiled_phases_and_the_others():
    values = json.loads(json.dumps(_plan("a", {"values": 5.0}, REST).as_dict()))
    assert list(values["phases"]) == ["values"] and values["not_compiled"] == list(REST)
    assert values["fits"] is None and values["phases"]["values"]["fits"] is True


def test_the_update_ratio_excludes_sampling_and_needs_all_updates():
    ours = _plan("a", {"decode": 40.0, "critics": 10.0, "actor": 30.0})
    other = _plan("b", {"decode": 50.0, "critics": 60.0, "actor": 40.0})
    text = ratios(ours, other)
    assert "updates   peak 0.500" in text and "program   peak 0.667" in text
    text = ratios(_plan("a", {"values": 5.0}, REST), _plan("b", {"values": 10.0}, REST))
    assert "updates" not in text and "program" not in text and "compiled  peak 0.500" in text


def test_the_total_is_that_of_the_compiled_phases_over_all_steps():
    text = table(_plan("a", ALL))  # five phases of 2 s on 4 chips
    assert "estimate: 10 s per step; the 200 steps of the run take 0.56 hours, 2.2 chip-h" in text
    assert "every answer has its maximum length" in text
    assert "estimate of values alone: 2 s per step" in table(_plan("a", {"values": 5.0}, REST))
    too_large = table(_plan("a", {"values": 98.0}, REST))
    assert "hours" not in too_large and "values needs most memory; lower config.batc" in too_large


def test_chips_of_two_devices_are_named():
    text = table(_plan("a", ALL, devices=8))
    assert "(4 chips of 2 devices; 'per chip' is per device, each of 95 GiB)" in text


def test_numbers_have_the_prefix_that_fits():
    assert quantity(1.5e15, "FLOP") == "1.50 PFLOP" and quantity(2.5e6, "B") == "2.50 MB"
    assert quantity(0.0, "B") == "0.00 B" and quantity(3e24, "B") == "3000000.00 EB"


def test_all_gathers_that_became_all_reduces_are_said_on_slices_of_whole_cubes():
    reductions, gathers = (
        {kind: {"count": 1.0, "bytes": 1.0}} for kind in ("all-reduce", "all-gather")
    )
    for topology, collectives, is_said in (
        ("v5p:4x4x8", reductions, True),
        ("v5p:4x4x8", reductions | gathers, False),
        ("v5p:2x4x4", reductions, False),
        ("v5e:4x4", reductions, False),
    ):
        planned = _plan("a", {"actor": 30.0})
        actor = dataclasses.replace(planned.phases["actor"], collectives=collectives)
        planned = dataclasses.replace(planned, topology=topology, phases={"actor": actor})
        assert ("makes all-reduces of all-gathers over all" in table(planned)) == is_said
