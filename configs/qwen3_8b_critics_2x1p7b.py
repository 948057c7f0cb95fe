"""AsyPPO as in the paper: Qwen3-8B-Base with two 1.7B critics (arXiv 2510.01656, section 4).

    python -m experiments.plan --config=configs/qwen3_8b_critics_2x1p7b.py --topology=v5p:2x2x2
    python -m experiments.train --config=configs/qwen3_8b_critics_2x1p7b.py --workdir=gs://BUCKET/qwen3_8b_critics_2x1p7b

Hardware: a TPU slice; experiments/plan/README.md plans v5p:2x2x2. Not run yet. Reported by the
paper: about 3% better than classic PPO, averaged over six benchmarks.
"""

from asyppo_jax.config import Settings
from configs.paper import paper_config


def get_config() -> Settings:
    return paper_config("8B", critic="1.7B")
