"""Samples and takes two steps on however many devices there are, of one process or several.

Run by test_multi_device.py and test_multi_host.py: MODEL SETTING OUT [ADDRESS PROCESSES INDEX],
where SETTING is plain, packed (rows), shared_prompts (packed as well, and the critics read
reference answers), offloaded (idle state on the host), reference (packed, offloaded, with KL to a
reference), gathered (parameters all-gathered once per minibatch: ZeRO stage 2), local (gradients
accumulated per shard as well: stage 1) or options (heads from the first rollout, and further
options of `config.value` and `config.algorithm`). With "+meshes" after it, sampling has 4 devices
along `model`, and the critics 2.
"""

import json
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.multihost_utils import process_allgather

from asyppo_jax.algorithm.head_init import init_heads_from_rollout
from asyppo_jax.algorithm.offload import make_train_step, reference_shardings, resting_shardings
from asyppo_jax.algorithm.state import create_train_state, state_shardings
from asyppo_jax.algorithm.train_step import phase_key, score_rollout
from asyppo_jax.config import Config
from asyppo_jax.models.actor_critic import actor_shapes
from asyppo_jax.runtime.multi_host import initialize
from asyppo_jax.runtime.phase_meshes import critics_mesh, on_mesh, reshard, sampling_mesh, to_mesh
from asyppo_jax.runtime.sharding import batch_sharding, make_mesh, param_shardings, put
from asyppo_jax.sampling import sample
from asyppo_jax.sampling.rollouts import with_rewards
from asyppo_jax.types import PromptBatch
from tests.algorithm.test_value_options import networks_of
from tests.tiny import PROMPT, VOCABULARY, make_config, make_options

OPTIONS = {
    "value__head": "sigmoid",
    "value__loss": "bce",
    "value__head_init": "rollout",
    "value__anchor": "shrunken_group",
    "value__positions": (0.3, 0.6, 0.9),
    "value__frozen": "attention",
    "algorithm__gae_lambda": 0.9,
    "algorithm__returns_lambda": 1.0,
    "algorithm__length_adaptive_lambda": 0.4,
    "algorithm__overlong_filter": True,
    "algorithm__zero_spread_groups": "drop",
    "algorithm__positive_nll_coef": 0.1,
    "algorithm__critic_data": "prompts",
    "algorithm__value_aggregation": "min",
    "algorithm__mask_by": "entropy",
}


def setting_config(model: int, setting: str) -> Config:
    setting, _, meshes = setting.partition("+")
    return make_config(
        mesh__sampling_model=4 if meshes else 0,
        mesh__critic_model=2 if meshes else 0,
        **(OPTIONS if setting == "options" else {}),
        mesh__model=model,
        algorithm__kl_coef=1.0 if setting in ("reference", "options") else 0.0,
        mesh__offload="idle" if setting in ("offloaded", "reference") else "none",
        mesh__zero_stage={"gathered": 2, "local": 1}.get(setting, 3),
        batching__packing=setting in ("packed", "shared_prompts", "reference"),
        batching__rows_per_prompt=2 if setting == "shared_prompts" else 1,
        value__reference_answer="{answer}" if setting == "shared_prompts" else "",
        sampling__num_prompts=8,
        sampling__group_size=4,
        actor_optimizer__eps=1e-3,  # Adam's sign-like first steps would blow up rounding
        critic_optimizer__eps=1e-3,
    )


def main(model: int, setting: str, out: str) -> None:
    config = setting_config(model, setting)
    networks, mesh = networks_of(config), make_mesh(config.mesh)
    options = make_options(4, config.sampling.max_completion_length, stop_ids=(7,), entropy=True)
    rng = np.random.default_rng(0)
    prompts = PromptBatch(
        tokens=jnp.asarray(rng.integers(0, VOCABULARY, (8, PROMPT)), jnp.int32),
        mask=jnp.asarray(np.arange(PROMPT)[None] >= rng.integers(0, PROMPT, 8)[:, None]),
    )
    with jax.set_mesh(mesh):
        shardings = resting_shardings(config, networks, mesh)
        state = jax.jit(partial(create_train_state, config, networks), out_shardings=shardings)()
        of_sampling = sampling_mesh(config.mesh, mesh)
        program = jax.jit(
            partial(sample, networks=networks, options=options),
            out_shardings=batch_sharding(of_sampling),
        )
        placed = put(prompts, jax.tree.map(lambda _: batch_sharding(of_sampling), prompts))
        key = phase_key(state.key, state.step, "sample")
        with jax.transfer_guard("disallow_explicit"):  # between meshes nothing crosses the host
            near = param_shardings(actor_shapes(networks.actor), of_sampling)
            params = reshard(state.actor_params, near)
            rollout = to_mesh(on_mesh(program, of_sampling)(params, placed, key), mesh)
        rewards = rng.integers(0, 2, 32).astype(np.float32)
        stopped = (whole(rollout.tokens)[:, PROMPT:] == 7).any(axis=1)
        rollout = with_rewards(rollout, rewards, np.arange(32) != 5, mesh, ~stopped)
        rollout = with_references(rollout, config, mesh)

        of_critics, options = critics_mesh(config.mesh, mesh), {"networks": networks}
        experience = on_mesh(jax.jit(partial(score_rollout, **options, config=config)), of_critics)
        near = state_shardings(config, networks, mesh).critic_params
        if config.value.head_init == "rollout":
            start = partial(init_heads_from_rollout, **options, config=config)
            start = on_mesh(jax.jit(start, out_shardings=near), of_critics)
            state = state.replace(critic_params=start(state.critic_params, rollout))
        on_device = jax.device_put(state.critic_params, near)
        seen, _ = experience(on_device, state.key, state.step, rollout)
        step = compiled_step(networks, config, mesh, state)
        sharded = sum(not x.sharding.is_fully_replicated for x in jax.tree.leaves(state))
        tokens = whole(rollout.tokens).tolist()
        state, _ = step(state, rollout)
        # Offloading moves state to the host, but between meshes nothing crosses it.
        guard = "disallow_explicit" if config.mesh.offload == "none" else "disallow"
        with jax.transfer_guard(guard):
            state, metrics = step(state, rollout)
    result = {
        "devices": jax.device_count(),
        "sharded_leaves": sharded,
        "tokens": tokens,
        "masks": [
            whole(x).tolist() for x in (seen.advantage_mask, seen.entropy_mask, seen.critic_shards)
        ],
        "metrics": {name: float(x) for name, x in metrics.items()},
        "params": [
            whole(x).ravel()[:50].tolist()
            for x in jax.tree.leaves((state.actor_params, state.critic_params))
        ],
    }
    with open(out, "w") as file:
        json.dump(result, file)


def with_references(rollout, config, mesh):
    """Three random tokens before each prompt, for the critics only, if they read references."""
    if not config.value.reference_answer:
        return rollout
    tokens, mask = whole(rollout.tokens)[:, :PROMPT], whole(rollout.prompt_mask)
    references = np.random.default_rng(1).integers(0, VOCABULARY, (8, 3)).repeat(4, axis=0)
    critic_prompt = np.zeros((len(tokens), PROMPT + 3), np.int32)
    for row, real in enumerate(mask):
        joined = [*references[row], *tokens[row][real]]
        critic_prompt[row, -len(joined) :] = joined
    critic_mask = np.arange(PROMPT + 3)[None] >= PROMPT - mask.sum(axis=1, keepdims=True)
    fields = {"critic_prompt": critic_prompt, "critic_prompt_mask": critic_mask}
    return rollout.replace(**put(fields, dict.fromkeys(fields, batch_sharding(mesh))))


def compiled_step(networks, config, mesh, state):
    step = make_train_step(networks, config, mesh)
    if not config.algorithm.kl_coef:
        return step
    start = jax.tree.map(jnp.copy, state.actor_params)  # the state is donated
    reference = jax.device_put(start, reference_shardings(config, networks, mesh))
    return lambda state, rollout: step(state, rollout, reference)


def whole(x: jax.Array) -> np.ndarray:
    return process_allgather(x, tiled=True)


if __name__ == "__main__":
    if len(sys.argv) > 4:
        initialize(sys.argv[4], int(sys.argv[5]), int(sys.argv[6]), timeout=120.0)
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
