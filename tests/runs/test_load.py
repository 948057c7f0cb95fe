"""Loading runs and directories, also on other meshes, and the errors for what cannot be loaded."""

import dataclasses
import inspect
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from asyppo_jax import load_actor, load_critics
from asyppo_jax.models.config import ModelError
from asyppo_jax.models.formats.huggingface import save_params
from asyppo_jax.runs import checkpoint
from asyppo_jax.runs.checkpoint import CheckpointError
from asyppo_jax.runs.load import Step
from tests.saved_run import write_run
from tests.simulated import environment
from tests.tiny import assert_trees_equal

TOKENS = np.arange(14).reshape(2, 7) % 5
MASK = np.arange(7)[None] >= np.array([[0], [3]])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"))


def test_the_actor_of_a_run_equals_the_saved_one_at_each_step(run):
    path, _, networks, state = run
    requests: list[tuple[Step, int]] = [("latest", 3), ("best", 2), (1, 1)]
    for requested, step in requests:
        actor = load_actor(path, step=requested)
        assert actor.step == step
        expected = jax.tree.map(lambda x, s=step: x * s if x.ndim else x, state.actor_params)
        assert_trees_equal(actor.params, expected)
    actor = load_actor(path, step=1)
    logits = networks.actor_logits(state.actor_params, jnp.asarray(TOKENS), jnp.asarray(MASK))
    np.testing.assert_allclose(actor.logits(TOKENS, MASK), logits, atol=1e-5)


def test_the_critics_of_a_run_equal_the_saved_ones_and_value_every_token(run):
    path, _, networks, state = run
    critics = load_critics(path)
    assert_trees_equal(critics.params, state.critic_params)
    values = critics.values(TOKENS, MASK)
    assert values.shape == (2, 2, 7) and critics.num_critics == 2
    for k in range(2):
        params = jax.tree.map(lambda x, k=k: x[k], state.critic_params)
        expected = networks.critic_values(params, jnp.asarray(TOKENS), jnp.asarray(MASK))
        np.testing.assert_allclose(values[k][MASK], expected[MASK], atol=1e-5)


def test_a_part_of_a_run_or_a_directory_of_runs_is_refused_with_the_run(run):
    path = Path(run[0])
    for load in (load_actor, load_critics):
        with pytest.raises(CheckpointError, match=r"is a part of a run; .*run' and step=2$"):
            load(path / "checkpoints" / "2")
    with pytest.raises(CheckpointError, match=r"checkpoints is a part of a run; give .*run'$"):
        load_actor(path / "checkpoints")
    with pytest.raises(CheckpointError, match=r"contains runs; give one of them, such as .*run'$"):
        load_actor(path.parent)


def test_the_optimizer_state_is_not_read(run, tmp_path):
    """A checkpoint without optimizer state loads equally, so only parameters are read."""
    path, config, _, state = run
    bare = tmp_path / "bare"
    checkpoint.write_settings(str(bare), dataclasses.asdict(config))
    with ocp.CheckpointManager(bare / "checkpoints") as manager:
        args = ocp.args.StandardSave({"actor_params": state.actor_params})
        manager.save(1, args=ocp.args.Composite(state=args))
    assert_trees_equal(load_actor(str(bare)).params, load_actor(path, step=1).params)


def test_a_model_directory_loads_as_an_actor(run):
    _, config, _, _ = run
    actor = load_actor(config.actor.path)
    assert actor.step is None and actor.networks.critic is None
    assert actor.logits(TOKENS).shape == (2, 7, actor.networks.actor.config.vocab_size)
    assert actor.params["decoder"]["embedding"].dtype == jnp.float32
    half = load_actor(config.actor.path, dtype="bfloat16")
    assert half.networks.actor.dtype == jnp.bfloat16


def test_critics_are_loaded_from_their_directories_in_order(run, tmp_path):
    path, _, networks, state = run
    for k in range(2):
        params = jax.tree.map(lambda x, k=k: np.asarray(x[k]), state.critic_params)
        save_params(tmp_path / f"critic_{k}", networks.critic.config, params, "critic")
    values = load_critics(path).values(TOKENS)
    np.testing.assert_array_equal(load_critics(str(tmp_path)).values(TOKENS), values)
    swapped = load_critics([str(tmp_path / "critic_1"), str(tmp_path / "critic_0")])
    np.testing.assert_array_equal(swapped.values(TOKENS), values[::-1])
    np.testing.assert_array_equal(
        load_critics(str(tmp_path / "critic_1")).values(TOKENS), values[1:]
    )
    deep = dataclasses.replace(networks.critic.config, num_layers=3)
    save_params(
        tmp_path / "deep",
        deep,
        {**load_actor(path).params, "value_kernel": np.zeros(32), "value_bias": np.zeros(())},
        "critic",
    )
    with pytest.raises(ModelError, match="have different architectures"):
        load_critics([str(tmp_path / "critic_0"), str(tmp_path / "deep")])


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"step": 9}, CheckpointError, "no checkpoint of step 9; give one of the steps 1, 2, 3"),
        ({"base": "./nowhere"}, ModelError, r"is missing \(.*\); set base \(--base\)"),
    ],
)
def test_a_missing_step_or_base_model_gives_a_one_sentence_error(run, arguments, error, sentence):
    with pytest.raises(error, match=sentence):
        load_actor(run[0], **arguments)


def test_a_step_that_is_neither_a_number_nor_a_known_name_gives_both_names(run):
    unchecked = inspect.unwrap(checkpoint.choose_step)  # tests check types, a user's program not
    with pytest.raises(CheckpointError, match=r"step is 'last'; give a step number, .latest. or"):
        unchecked(run[0], "last")


def test_a_path_that_is_no_run_and_no_model_gives_a_one_sentence_error(run, tmp_path):
    _, config, _, _ = run
    with pytest.raises(ModelError, match=r"model directory './nowhere' does not exist"):
        load_actor("./nowhere")
    with pytest.raises(ModelError, match=r"has no config\.json"):
        load_actor(str(tmp_path))
    with pytest.raises(ModelError, match="has no value head"):
        load_critics(config.actor.path)
    with pytest.raises(ModelError, match="list of critics is empty"):
        load_critics([])


def test_a_run_without_critics_and_one_without_a_checkpoint_give_a_clear_error(tmp_path):
    path, config, _, _ = write_run(tmp_path, num_critics=0)
    with pytest.raises(CheckpointError, match=r"num_critics = 0; it has no critics"):
        load_critics(path)
    checkpoint.write_settings(str(tmp_path / "new"), dataclasses.asdict(config))
    (tmp_path / "new" / "checkpoints").mkdir()
    with pytest.raises(CheckpointError, match="has no finished checkpoint"):
        load_actor(str(tmp_path / "new"))


@pytest.mark.slow  # test_checkpoint.py tests this for the train state
@pytest.mark.parametrize("devices", [8])
def test_networks_load_onto_another_mesh_with_the_same_numbers(run, tmp_path, devices):
    out = tmp_path / "out.npz"
    subprocess.run(
        [sys.executable, "-m", "tests.load_program", run[0], str(out)],
        cwd=Path(__file__).parents[2],
        env=environment(devices),
        check=True,
        timeout=300,
    )
    actor, critics = load_actor(run[0]), load_critics(run[0])
    with np.load(out) as results:
        assert results["devices"] == devices and results["sharded"] > 5
        np.testing.assert_allclose(results["logits"], actor.logits(TOKENS), atol=1e-4)
        np.testing.assert_allclose(results["values"], critics.values(TOKENS), atol=1e-4)
        texts = actor.generate(["1+2", "2+2", "3+3"], max_completion_length=5)
        assert results["texts"].tolist() == texts
