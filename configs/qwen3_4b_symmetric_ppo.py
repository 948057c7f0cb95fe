"""The paper's classic PPO baseline: a Qwen3-4B-Base actor with one critic of its own size.

    python -m experiments.plan --config=configs/qwen3_4b_symmetric_ppo.py --topology=v5p:2x2x2

The baseline of `qwen3_4b_critics_2x0p6b` (arXiv 2510.01656, section 4): the same program
and settings with K = 1 and no masks. Hardware: a TPU slice;
experiments/plan/README.md plans v5p:2x2x2. Not run yet.
"""

from asyppo_jax.config import Settings
from configs.paper import paper_config, symmetric


def get_config() -> Settings:
    return symmetric(paper_config("4B", critic="4B"))
