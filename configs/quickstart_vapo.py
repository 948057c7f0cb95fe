"""The quickstart with VAPO (arXiv 2504.05118): VC-PPO with a λ for each length of an answer.

    python -m experiments.train --config=configs/quickstart_vapo.py --workdir=runs/vapo

λ = 1 − 1 / (α L) for an answer of L tokens, a higher upper clip, the mean over tokens, and a
language-model loss on right answers. The paper's α is 0.05 for thousands of tokens; here an answer
has up to 44.
"""

from asyppo_jax.config import Settings
from configs import quickstart_vc_ppo


def get_config() -> Settings:
    config = quickstart_vc_ppo.get_config()
    config.algorithm.length_adaptive_lambda = 0.4
    config.algorithm.clip_eps_high = 0.28
    config.algorithm.loss_aggregation = "token"
    config.algorithm.positive_nll_coef = 0.1
    return config
