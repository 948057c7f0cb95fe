"""What a search may choose: what divides, what may fit, and a formula below what is compiled."""

from dataclasses import replace
from typing import get_args

import jax
import pytest

from asyppo_jax.planning import candidates as module
from asyppo_jax.planning.candidates import Candidate, Remat, candidates, least_bytes, setting_of
from tests.planning.test_plan import _config

PLAIN = Candidate(1, 1, 3, "full", 1, 1)


@pytest.fixture
def setting(monkeypatch):
    """Eight chips of a v5e, and no TPU compiler."""
    monkeypatch.setattr(module, "topology_devices", lambda name: jax.devices()[:1] * 8)
    return setting_of(_config(), "v5litepod-8", name="small")


def test_a_candidate_sets_the_mesh_and_microbatches_of_all_shards(setting):
    assert (setting.topology, setting.devices) == ("v5e:2x4", 8)
    config = Candidate(2, 3, 2, "dots", 2, 8).applied(setting.config, 8)
    assert (config.mesh.data, config.mesh.model, config.mesh.zero_stage) == (-1, 2, 2)
    assert (config.mesh.sampling_model, config.mesh.critic_model) == (0, 8)  # 0: as `model`
    sizes = config.batching
    assert (sizes.microbatch_size, sizes.critic_microbatch_size) == (3 * 4, 3)
    assert config.actor.remat == "dots"


def test_candidates_divide_heads_and_minibatches(setting):
    possible, refused = candidates(setting)
    assert {candidate.model for candidate in possible} == {1, 2, 4, 8}  # 8 key heads
    assert {candidate.sampling_model for candidate in possible} == {2, 4, 8}
    assert {candidate.critic_model for candidate in possible} == {1, 2, 4, 8}
    for candidate, formula in possible.items():
        assert ("reshard" in formula) == (candidate.sampling_model != candidate.model)
    for candidate in possible:
        assert 16 % (candidate.rows * 8 // candidate.model) == 0  # minibatches of 16
    # Four prompts cannot be divided over eight shards.
    assert any("config.sampling.num_prompts" in reason for reason in refused)


def test_what_cannot_fit_is_left_out_with_its_memory(setting, monkeypatch):
    needed = {c: least_bytes(c, setting) for c in candidates(setting)[0]}
    limit = sorted(needed.values())[len(needed) // 2]
    chip = replace(setting.chip, hbm_bytes=limit / 0.9)
    monkeypatch.setattr(module, "chip_of", lambda name: chip)
    possible, refused = candidates(setting)
    assert set(possible) == {c for c, size in needed.items() if size <= limit}
    assert any("zero_stage=1" in reason and "GiB per chip" in reason for reason in refused)


def test_memory_by_formula_grows_with_what_is_kept(setting):
    plain = least_bytes(PLAIN, setting)
    for change in ({"rows": 2}, {"zero_stage": 2}):
        assert least_bytes(replace(PLAIN, **change), setting) > plain
    by_remat = [least_bytes(replace(PLAIN, remat=remat), setting) for remat in get_args(Remat)]
    assert by_remat[0] == plain and sorted(set(by_remat)) == by_remat
    gathered, local = (replace(PLAIN, zero_stage=stage) for stage in (2, 1))
    assert least_bytes(local, setting) > least_bytes(gathered, setting)
    assert setting.state_bytes / 8 < plain


def test_seconds_by_formula_know_what_saves_traffic_and_flops(setting):
    def network(**changes):
        return module.network_seconds(replace(PLAIN, model=2, **changes), setting)

    def actor(**changes):
        return module.least_seconds(replace(PLAIN, model=2, **changes), setting)["actor"]

    assert network(zero_stage=2) < network()  # fewer all-gathers
    assert network(rows=2) < network()  # fewer microbatches
    by_remat = [actor(remat=remat) for remat in get_args(Remat)]  # less and less is computed again
    assert sorted(set(by_remat), reverse=True) == by_remat
