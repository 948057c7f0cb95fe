"""AsyPPO as in the paper: Qwen3-14B-Base with two 4B critics (arXiv 2510.01656, section 4).

    python -m experiments.plan --config=configs/qwen3_14b_critics_2x4b.py --topology=v5p:2x2x4
    python -m experiments.train --config=configs/qwen3_14b_critics_2x4b.py --workdir=gs://BUCKET/qwen3_14b_critics_2x4b

Hardware: a TPU slice; experiments/plan/README.md plans v5p:2x2x4. Not run yet. Reported by the
paper: about 3 points over GRPO, averaged over six benchmarks.
"""

from asyppo_jax.config import Settings
from configs.paper import paper_config


def get_config() -> Settings:
    return paper_config("14B", critic="4B")
