"""The quickstart with DAPO (arXiv 2503.14476): GRPO with four changes.

    python -m experiments.train --config=configs/quickstart_dapo.py --workdir=runs/dapo

1. Clip-higher (equation 10): ρ is clipped at 1.28 above. 2. Dynamic sampling (equation 11): groups
whose answers are all right or all wrong are replaced by those of more prompts, in up to 10 rounds.
3. The mean over tokens (equation 12). 4. The soft overlong punishment (equation 13). Hardware: any
two CPU cores, a few minutes.
"""

from asyppo_jax.config import Settings
from configs import quickstart_grpo


def get_config() -> Settings:
    config = quickstart_grpo.get_config()
    config.algorithm.clip_eps_high = 0.28
    config.algorithm.zero_spread_groups = "resample"
    config.algorithm.loss_aggregation = "token"
    # The other quickstarts' 44 tokens, then a buffer of 11: the paper's 16,384 and 4,096, scaled.
    config.sampling.max_completion_length = 55
    config.batching.logits_chunk = 55
    config.algorithm.overlong_buffer = 11
    config.algorithm.overlong_penalty = 0.5  # the paper's 1 is half the range of rewards -1 and 1
    return config
