"""The quickstart with critics that learn more from each rollout (docs/critics.md).

    python -m experiments.train --config=configs/quickstart_better_critics.py --workdir=runs/better

Value heads are scaled by the first rollout, values are probabilities (a sigmoid, fitted by binary
cross-entropy), and each rollout is fitted four times. Hardware: any two CPU cores, a few minutes.
"""

from asyppo_jax.config import Settings
from configs import quickstart


def get_config() -> Settings:
    config = quickstart.get_config()
    config.value.head_init = "rollout"
    config.value.head = "sigmoid"
    config.value.loss = "bce"
    config.algorithm.critic_epochs = 4
    return config
