"""The quickstart: a tiny actor learns to write its steps down, because that improves its answers.

    make quickstart            (or: python -m experiments.train --config=configs/quickstart.py
                                --workdir=runs/quickstart)

Hardware: any two CPU cores, a few minutes. The method is the paper's (arXiv 2510.01656, section 4):
two critics, each trained on half of every group, and masks at 20%. Unlike the paper's, the learning
rates and the warm-up are chosen for a model of 0.6 million parameters.
"""

from pathlib import Path

from asyppo_jax.config import Settings, default_config

MODEL = Path("experiments/quickstart/model")
if not MODEL.is_dir():  # called from another directory
    MODEL = Path(__file__).parents[1] / MODEL


def get_config() -> Settings:
    config = default_config()
    config.num_steps = 30

    config.actor.path = str(MODEL)
    config.actor.remat = "none"  # the model is small, so storing all activations is faster
    config.critic.num_layers = 2  # mini-critics: the first half of the actor's layers
    config.critic.remat = "none"
    config.actor_optimizer.learning_rate = 1e-4
    config.critic_optimizer.learning_rate = 1e-3

    for data, split, count in ((config.train_data, "train", 4096), (config.eval_data, "eval", 256)):
        data.source = "function"
        data.path = "experiments.quickstart.task:records"
        data.split = split
        data.num_records = count
    config.prompt.template = "{problem}="
    config.prompt.max_length = 12
    config.reward.function = "exact"

    config.sampling.num_prompts = 16
    config.sampling.group_size = 8
    config.sampling.max_completion_length = 44
    config.sampling.temperature = 1.0
    config.sampling.top_p = 1.0

    config.algorithm.advantage_mask_fraction = 0.2  # the paper's, like the other mask
    config.algorithm.critic_warmup_steps = 3
    config.algorithm.actor_epochs = 2
    config.batching.actor_minibatch_size = 64
    config.batching.critic_minibatch_size = 64
    config.batching.microbatch_size = 64
    config.batching.logits_chunk = 44

    config.evaluation.every = 10
    config.evaluation.batch_size = 128
    config.checkpoint.every = 10
    return config
