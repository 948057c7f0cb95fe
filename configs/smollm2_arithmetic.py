"""AsyPPO with real weights on a CPU: SmolLM2-135M on one-shot arithmetic, two 10-layer critics.

    python -m experiments.real_model.fetch
    python -m experiments.train --config=configs/smollm2_arithmetic.py --workdir=runs/smollm2

Hardware: two CPU cores, 12 GiB; about 20 s per step. Measured held-out accuracy: 46.5% before
training, 85.9% after 32 steps, 77.6% after 80.
The method is the paper's (arXiv 2510.01656, section 4) with K = 2, masks at 20%, group-level
division. Unlike the paper's: a higher learning rate and one epoch, because the model is small and
the run short, and three warm-up steps.
"""

import os

from asyppo_jax.config import Settings, default_config

# One solved example and the problem: 17 to 19 tokens with SmolLM2's tokenizer.
TEMPLATE = "20 + 30 = 50\n{problem} = "

MODELS = os.environ.get("ASYPPO_MODELS", os.path.expanduser("~/.cache/asyppo_jax/models"))


def get_config() -> Settings:
    config = default_config()
    config.num_steps = 80

    config.actor.path = f"{MODELS}/smollm2-135m-instruct"
    config.actor.remat = "none"  # sequences have only about twenty tokens
    config.critic.num_layers = 10
    config.critic.remat = "none"
    config.actor_optimizer.learning_rate = 1e-5
    config.critic_optimizer.learning_rate = 3e-5

    # The task's mixture repeats every 13 records: 100 repetitions to train on, 6 held out.
    for data, split, count in ((config.train_data, "train", 1300), (config.eval_data, "eval", 78)):
        data.source = "function"
        data.path = "experiments.real_model.arithmetic:records"
        data.split = split
        data.num_records = count
    config.prompt.template = TEMPLATE
    config.prompt.max_length = 19
    config.reward.function = "exact"

    config.sampling.num_prompts = 12
    config.sampling.group_size = 8
    config.sampling.max_completion_length = 4
    config.sampling.temperature = 1.0
    config.sampling.top_p = 1.0
    config.sampling.stop_tokens = ("\n",)

    config.algorithm.advantage_mask_fraction = 0.2  # the paper's, like the other mask
    config.algorithm.critic_warmup_steps = 3
    config.algorithm.actor_epochs = 1
    config.batching.actor_minibatch_size = 32
    config.batching.critic_minibatch_size = 32
    config.batching.microbatch_size = 32
    config.batching.logits_chunk = 4

    config.evaluation.every = 8
    config.evaluation.num_samples = 4
    config.evaluation.batch_size = 39
    config.checkpoint.every = 8
    config.checkpoint.keep = 1
    return config
