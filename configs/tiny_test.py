"""The quickstart cut down to five steps, for tests.

    python -m experiments.train --config=configs/tiny_test.py --workdir=runs/tiny_test

Hardware: any CPU core, a minute. It only shows that everything runs; accuracy does not improve.
"""

from asyppo_jax.config import Settings
from configs import quickstart


def get_config() -> Settings:
    config = quickstart.get_config()
    config.num_steps = 5
    config.train_data.num_records = 64
    config.eval_data.num_records = 16
    config.sampling.num_prompts = 4
    config.sampling.group_size = 4
    config.algorithm.critic_warmup_steps = 1
    config.batching.actor_minibatch_size = 8
    config.batching.critic_minibatch_size = 8
    config.batching.microbatch_size = 8
    config.evaluation.every = 2
    config.evaluation.batch_size = 16
    config.checkpoint.every = 2
    config.log.samples_every = 2
    return config
