"""The base config of the study of AsyPPO on two tiny tasks: AsyPPO itself, on sums.

    python -m experiments.train --config=configs/asyppo_study.py --workdir=runs/asyppo_study

The other task: --config.train_data.path and --config.eval_data.path =
experiments.asyppo_study.tasks:chains. The other actor:
--config.actor.path=experiments/asyppo_study/models/llama. Hardware: one CPU core, two minutes.
experiments/asyppo_study/README.md has the tasks, PREREGISTRATION.md the study's methods.
"""

from pathlib import Path

from asyppo_jax.config import Settings, default_config

MODELS = Path("experiments/asyppo_study/models")
if not MODELS.is_dir():  # called from another directory
    MODELS = Path(__file__).parents[1] / MODELS


def get_config() -> Settings:
    config = default_config()
    config.num_steps = 100

    config.actor.path = str(MODELS / "qwen3")
    config.actor.remat = "none"  # the model is small, so storing all activations is faster
    config.critic.num_layers = 2  # mini-critics: the first third of the actor's layers
    config.critic.remat = "none"
    config.actor_optimizer.learning_rate = 1e-4
    config.critic_optimizer.learning_rate = 1e-3

    for data, split, count in ((config.train_data, "train", 8192), (config.eval_data, "eval", 256)):
        data.source = "function"
        data.path = "experiments.asyppo_study.tasks:sums"
        data.split = split
        data.num_records = count
    config.prompt.template = "{problem}="
    config.prompt.max_length = 10
    config.reward.function = "exact"
    config.reward.num_workers = 1

    config.sampling.num_prompts = 8
    config.sampling.group_size = 8
    config.sampling.max_completion_length = 29
    config.sampling.temperature = 1.0
    config.sampling.top_p = 1.0

    config.algorithm.advantage_mask_fraction = 0.2  # the paper's, like the other mask
    config.algorithm.critic_warmup_steps = 3
    config.algorithm.actor_epochs = 2
    config.batching.actor_minibatch_size = 64
    config.batching.critic_minibatch_size = 64
    config.batching.microbatch_size = 64
    config.batching.logits_chunk = 29

    config.evaluation.every = 10
    config.evaluation.batch_size = 256
    config.checkpoint.every = 0
    config.log.tensorboard = False
    config.log.samples_every = 0
    return config
