"""AsyPPO as in the paper: Qwen3-4B-Base with two 0.6B critics (arXiv 2510.01656, section 4).

    python -m experiments.plan --config=configs/qwen3_4b_critics_2x0p6b.py --topology=v5p:2x2x2
    python -m experiments.train --config=configs/qwen3_4b_critics_2x0p6b.py --workdir=gs://BUCKET/qwen3_4b_critics_2x0p6b

Hardware: a TPU slice; experiments/plan/README.md plans v5p:2x2x2. Not run yet. Reported by the
paper: more than 6% better than classic PPO, averaged over six benchmarks.
"""

from asyppo_jax.config import Settings
from configs.paper import paper_config


def get_config() -> Settings:
    return paper_config("4B", critic="0.6B")
