r"""AsyPPO on GSM8K: Qwen2.5-Coder-0.5B-Instruct with two critics made from its first 8 layers.

    python -m experiments.real_model.fetch
    python -m experiments.train --config=configs/qwen2p5_0p5b_gsm8k.py --workdir=runs/gsm8k

Hardware: one GPU with 80 GiB or a TPU v5e-8 for the full run. With smaller settings, given as flags
in experiments/real_model/README.md, a few steps fit a CPU with 24 GiB. Data: openai/gsm8k as
gsm8k_train.jsonl and gsm8k_test.jsonl in $ASYPPO_DATA; an answer is the number after ####. The
method is the paper's (arXiv 2510.01656) without the mask of the policy loss: K = 2, the entropy's
mask at 20%, four epochs. Group size (16) and completion length (512) are smaller than the paper's,
to suit the model.
"""

import os

from asyppo_jax.config import Settings, default_config

MODELS = os.environ.get("ASYPPO_MODELS", os.path.expanduser("~/.cache/asyppo_jax/models"))
DATA = os.environ.get("ASYPPO_DATA", "data")


def get_config() -> Settings:
    config = default_config()
    config.num_steps = 150

    config.actor.path = f"{MODELS}/qwen2.5-coder-0.5b-instruct"
    config.actor.dtype = "bfloat16"
    config.critic.num_layers = 8
    config.critic.dtype = "bfloat16"
    config.algorithm.old_log_probs = "recompute"  # sampler and learner differ in bfloat16 rounding
    config.actor_optimizer.learning_rate = 2e-6

    for data, split in ((config.train_data, "train"), (config.eval_data, "test")):
        data.path = f"{DATA}/gsm8k_{split}.jsonl"
        data.problem_field = "question"
        data.answer_pattern = r"####\s*(.+)"
    config.eval_data.num_records = 200
    config.prompt.max_length = 256

    config.sampling.num_prompts = 32
    config.sampling.group_size = 16
    config.sampling.max_completion_length = 512
    config.sampling.temperature = 1.0
    config.sampling.top_p = 1.0

    config.evaluation.every = 25
    config.evaluation.batch_size = 100
    config.evaluation.temperature = 0.0
    return config
