"""The quickstart with SP3O (arXiv 2609.18708): PPO whose critic fits three positions per answer.

    python -m experiments.train --config=configs/quickstart_sp3o_ppo.py --workdir=runs/sp3o_ppo

L = Σ_{t in I} (V_t − R)² with I = {round(a (L − 1)): a = 0.3, 0.6, 0.9}, never the last token;
during the warm-up all tokens.
"""

from asyppo_jax.config import Settings
from configs import quickstart_symmetric_ppo


def get_config() -> Settings:
    config = quickstart_symmetric_ppo.get_config()
    config.value.positions = (0.3, 0.6, 0.9)
    return config
