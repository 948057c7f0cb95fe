"""The paper's GRPO baseline: a Qwen3-8B-Base actor, no critics, advantages within the group.

    python -m experiments.plan --config=configs/qwen3_8b_grpo.py --topology=v5p:2x2x2

The baseline of `qwen3_8b_critics_2x1p7b` (arXiv 2510.01656, section 4): the same program and
settings with K = 0 and no entropy bonus. Hardware: a TPU slice;
experiments/plan/README.md plans v5p:2x2x2. Not run yet.
"""

from asyppo_jax.config import Settings
from configs.paper import paper_config


def get_config() -> Settings:
    return paper_config("8B", critic=None)
