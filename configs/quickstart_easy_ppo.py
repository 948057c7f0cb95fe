"""The quickstart with EasyPPO (arXiv 2609.36802): PPO with a critic that is trained with more care.

    python -m experiments.train --config=configs/quickstart_easy_ppo.py --workdir=runs/easy_ppo

Truncated answers leave the actor's loss and stay in the critic's. The critic's loss is divided by
the std of each prompt's rewards, at least 1 / (2 √G), and a rollout is four minibatches of the
critic, each with its own gradient clip.
"""

from asyppo_jax.config import Settings
from configs import quickstart_symmetric_ppo


def get_config() -> Settings:
    config = quickstart_symmetric_ppo.get_config()
    config.algorithm.overlong_filter = True
    config.algorithm.loss_aggregation = "token"
    config.value.noise_weights = True
    config.batching.critic_minibatch_size = 32
    config.batching.critic_microbatch_size = 32
    return config
