"""What a plan can say before it compiles anything: state that is too large, replicated axes."""

import math

import jax
from jax.sharding import Mesh

from asyppo_jax.algorithm.offload import FIELDS, OFFLOADED
from asyppo_jax.algorithm.state import state_shapes, state_shardings
from asyppo_jax.config import Config, ConfigError, MeshConfig
from asyppo_jax.models.actor_critic import Networks, networks_of_meshes
from asyppo_jax.models.config import ModelConfig
from asyppo_jax.planning.phases import bytes_per_chip
from asyppo_jax.planning.topology import Chip
from asyppo_jax.runtime.sharding import placed

GIB = 2**30


class StateTooLarge(ConfigError):
    """Parameters and optimizer states alone need more memory than the slice has."""


def check_state_fits(config: Config, networks: Networks, mesh: Mesh, chip: Chip) -> None:
    """Raises `StateTooLarge` if the state that stays on a device is larger than its memory."""
    hbm_bytes = chip.hbm_bytes
    shapes, shardings = state_shapes(config, networks), state_shardings(config, networks, mesh)
    on_host, offload = OFFLOADED[config.mesh.offload], config.mesh.offload
    fields = [field for field in FIELDS if field not in on_host]
    state = [placed(getattr(shapes, name), getattr(shardings, name)) for name in fields]
    per_chip = bytes_per_chip(state)
    if per_chip <= hbm_bytes:
        return
    total = sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(state))
    model = mesh.shape["model"]
    least = -(-math.ceil(total / hbm_bytes) // model) * model
    chips = -(-least // chip.devices)
    larger = f"use a slice of at least {chips} chips with config.mesh.data = -1"
    if least <= mesh.size:  # axes that the mesh does not divide are replicated
        larger = "set a config.mesh.model that divides heads, mlp and vocabulary"
    raise StateTooLarge(
        f"parameters and optimizer states need {per_chip / GIB:.1f} GiB per chip, but a chip has "
        f"{round(hbm_bytes / GIB, 2):g} GiB; {larger}"
        + (", or set config.mesh.offload = 'optimizers' or 'idle'" if offload == "none" else "")
    )


def replicated_axes(networks: Networks, mesh: MeshConfig) -> list[str]:
    """A sentence for each network of which the `model` axis of its mesh does not divide some axes.

    Such an axis is not sharded (see `runtime.sharding.RULES`): that is right, but takes memory.
    """
    sentences = []
    for name, field, network in networks_of_meshes(networks, mesh):
        model = getattr(mesh, field)
        if axes := _not_divided(network.config, model):
            sentences.append(
                f"config.mesh.{field} = {model} does not divide {' and '.join(axes)} of the "
                f"{name}: these are replicated on all chips of `model`, which takes more memory "
                "and time"
            )
    return sentences


def _not_divided(config: ModelConfig, model: int) -> list[str]:
    sizes = {
        "query heads": config.num_heads,
        "key heads": config.num_kv_heads,
        "units of the MLP": config.mlp_dim,
        "tokens of the vocabulary": config.vocab_size,
    }
    return [f"the {size:,} {name}" for name, size in sizes.items() if size % model]
