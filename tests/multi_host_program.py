"""What the processes of a run divide, in one of them; run by test_multi_host.py.

OUT ADDRESS PROCESSES INDEX
"""

import json
import sys

import jax
import numpy as np

from asyppo_jax.config import MeshConfig, RewardConfig
from asyppo_jax.evaluation.held_out import evaluate
from asyppo_jax.runs.checkpoint import CheckpointError, write_settings
from asyppo_jax.runtime.multi_host import (
    gather_rows,
    initialize,
    own_rows,
    read_rows,
    sum_over_hosts,
)
from asyppo_jax.runtime.sharding import batch_sharding, make_mesh, put, replicated
from asyppo_jax.sampling.sampler import evaluation_options, read_answers
from asyppo_jax.tasks.rewards import RewardPool
from tests.tiny import make_config_sampler, make_sampling_setting

PROBLEMS = ("1+1", "2+3", "4+4", "9+9", "5+1")


def rows_of_meshes() -> dict[str, list[int]]:
    """Each mesh's own rows; that gathering them gives the whole is checked here."""
    found, whole = {}, np.arange(48.0, dtype=np.float32).reshape(16, 3)
    for model in (1, 2, 8):
        sharding = batch_sharding(make_mesh(MeshConfig(model=model)))
        rows = own_rows(sharding, 16)
        mine = read_rows(put(whole, sharding), rows)
        np.testing.assert_array_equal(mine, whole[rows])
        np.testing.assert_array_equal(gather_rows(mine, rows, 16), whole)
        flags = gather_rows({"even": rows % 2 == 0}, rows, 16)
        np.testing.assert_array_equal(flags["even"], np.arange(16) % 2 == 0)
        found[str(model)] = rows.tolist()
    return found


def answers_and_evaluation(directory: str, model: int) -> dict:
    """This process's rows of a rollout, in words, and what it says of the whole evaluation."""
    setting = make_sampling_setting(directory, PROBLEMS)
    config, _, networks, tokenizer, ids, prompts, params = setting
    mesh = make_mesh(MeshConfig(model=model))
    params = put(params, jax.tree.map(lambda _: replicated(mesh), params))
    options = evaluation_options(config, *ids)
    sampler = make_config_sampler(networks, tokenizer, config, options, mesh)
    reward = RewardConfig(function="tests.graders:right_for_two_and_three", time_limit=30.0)
    with jax.set_mesh(mesh), RewardPool(reward) as pool:
        rollout = sampler(params, prompts[:2], jax.random.key(0), mesh)
        answers = read_answers(rollout, prompts[:2], sampler)
        result = evaluate(sampler, params, prompts, pool, jax.random.key(0), config, mesh)
    said = answers.rows.tolist(), answers.problems, answers.completions, answers.lengths.tolist()
    return {"said": [list(row) for row in zip(*said, strict=True)], "result": list(result)}


def refusal_of_own_disk(workdir: str) -> str:
    """What is said where each process has a directory of its own."""
    try:
        write_settings(workdir, {"seed": 0})
    except CheckpointError as error:
        return str(error)
    return ""


def main(out: str) -> None:
    result = {"rows": rows_of_meshes(), "sum": int(sum_over_hosts(1 + jax.process_index()))}
    result["refusal"] = refusal_of_own_disk(f"{out}.run")
    result |= answers_and_evaluation(f"{out}.model", model=4)  # two rows of the mesh
    with open(out, "w") as file:
        json.dump(result, file)


if __name__ == "__main__":
    initialize(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), timeout=120.0)
    main(sys.argv[1])
