"""The quickstart with Dr.GRPO (arXiv 2503.20783): GRPO without its two normalizations.

    python -m experiments.train --config=configs/quickstart_dr_grpo.py --workdir=runs/dr_grpo

A_i = r_i − mean of the group, without the division by the group's std, and 1/C per token instead of
1/|o_i|. Hardware: any two CPU cores, a few minutes.
"""

from asyppo_jax.config import Settings
from configs import quickstart_grpo


def get_config() -> Settings:
    config = quickstart_grpo.get_config()  # not whitened: that would divide by the batch's std
    config.algorithm.group_scale = "none"
    config.algorithm.loss_aggregation = "constant"
    return config
