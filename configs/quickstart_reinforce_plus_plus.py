"""The quickstart with REINFORCE++ (arXiv 2501.03262): rewards normalized over the batch.

    python -m experiments.train --config=configs/quickstart_reinforce_plus_plus.py \
        --workdir=runs/reinforce_plus_plus

A_t = (r − mean) / std, where mean and std are over all tokens of the batch. The paper's variant for
reasoning subtracts the mean of the group first ("w/ baseline"):
--config.algorithm.advantages=reinforce_plus_plus_baseline. Without the paper's KL term. Hardware:
any two CPU cores, a few minutes.
"""

from asyppo_jax.config import Settings
from configs import quickstart


def get_config() -> Settings:
    config = quickstart.get_config()
    config.algorithm.advantages = "reinforce_plus_plus"
    config.algorithm.num_critics = 0
    config.algorithm.advantage_whitening = "before_mask"  # the method's normalization
    return config
