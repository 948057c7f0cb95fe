"""Generating with an actor that was loaded."""

import dataclasses

import pytest

from asyppo_jax import load_actor
from asyppo_jax.config import PromptConfig
from tests.saved_run import write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"))


def test_generate_gives_the_same_texts_for_a_seed_and_greedy_needs_none(run):
    actor = load_actor(run[0])
    texts = actor.generate(["1+2", "3+4+5"], num_samples=3, max_completion_length=6, seed=7)
    assert [len(some) for some in texts] == [3, 3]
    assert len({one for some in texts for one in some}) > 1
    again = actor.generate(["1+2", "3+4+5"], num_samples=3, max_completion_length=6, seed=7)
    assert texts == again
    greedy = [
        actor.generate(["1+2"], max_completion_length=6, temperature=0.0, seed=seed)
        for seed in (0, 1)
    ]
    assert greedy[0] == greedy[1]
    plain = PromptConfig(template="{problem}")  # what the run's template makes of "1+2"
    ((same,),) = actor.generate(["1+2="], max_completion_length=6, temperature=0.0, prompt=plain)
    assert same == greedy[0][0][0]
    assert actor.generate([]) == []


def test_a_runs_stop_strings_end_what_it_generates(run):
    actor = load_actor(run[0])
    ((whole,),) = actor.generate(["1+2"], max_completion_length=6, temperature=0.0)
    stop = whole[1:2]
    sampling = dataclasses.replace(actor.config.sampling, stop_strings=(stop,))
    config = dataclasses.replace(actor.config, sampling=sampling)
    stopped = dataclasses.replace(actor, config=config)
    ((text,),) = stopped.generate(["1+2"], max_completion_length=6, temperature=0.0)
    assert text == whole[: whole.index(stop) + 1] and len(text) < len(whole)
