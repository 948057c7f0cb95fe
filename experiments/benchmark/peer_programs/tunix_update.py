# pyright: reportMissingImports=false
"""PPO's update by tunix's trainers and losses: a peer of `experiments.benchmark update`.

Needs google-tunix. One gradient step over all rows: tunix's trainer accumulates microbatches in
optax.MultiSteps. Its policy loss is a mean over tokens. Its value loss has a factor ½ and is
clipped (here with a range so wide that nothing is clipped).
"""

import dataclasses
import json
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tunix
from flax import nnx
from tunix.rl import algo_core, trainer
from tunix.rl.ppo import ppo_learner
from tunix.sft import peft_trainer
from tunix_model import load, report


def serve(update, losses):
    """Runs a timed update for every line of stdin; `losses` are those of the first update."""
    for _ in sys.stdin:
        start, processor = time.perf_counter(), time.process_time()
        update()
        report(
            seconds=time.perf_counter() - start,
            cpu_seconds=time.process_time() - processor,
            actor_loss=losses[0],
            critic_loss=losses[1],
        )


def load_critic(directory, kernel):
    """The model with a linear layer of one output instead of its head, as tunix makes critics."""
    model = load(directory)
    model.config = dataclasses.replace(model.config, use_tied_embedding=False)
    model.lm_head = nnx.Linear(len(kernel), 1, use_bias=False, rngs=nnx.Rngs(0))
    model.lm_head.kernel.value = jnp.asarray(kernel)[:, None]
    return model


def main():
    started = time.perf_counter()
    job = json.loads(Path(sys.argv[1]).read_text())
    arrays = dict(np.load(job["arrays"]))
    prompt, size = job["prompt"], job["microbatch"]
    settings = ppo_learner.PPOConfig(
        beta=0.0, epsilon=job["clip"], entropy_coef=job["entropy_coef"], clip_range_value=1e9
    )
    steps = arrays["mask"].shape[0] // size

    def make(model, name):
        chain = optax.chain(
            optax.clip_by_global_norm(job["max_grad_norm"]),
            optax.adamw(job[f"{name}_learning_rate"], weight_decay=0.0),
        )
        config = peft_trainer.TrainingConfig(
            eval_every_n_steps=10**9, gradient_accumulation_steps=steps
        )
        return trainer.Trainer(model, chain, config, custom_checkpoint_metadata_fn=dict)

    ids = {"pad_id": job["pad"], "eos_id": -1}
    actor = make(load(job["model"]), "actor").with_loss_fn(
        algo_core.ppo_policy_loss_fn, has_aux=True
    )
    actor.with_gen_model_input_fn(lambda x: {"train_example": x, "algo_config": settings, **ids})
    critic = make(load_critic(job["critic"], arrays["value_kernel"]), "critic")
    critic.with_loss_fn(algo_core.ppo_value_loss_fn, has_aux=True)
    critic.with_gen_model_input_fn(
        lambda x: {"train_example": x, "clip_range_value": settings.clip_range_value, **ids}
    )
    actor_step, _ = actor.jit_train_and_eval_step(cache_nnx_graph=True)
    critic_step, _ = critic.jit_train_and_eval_step(cache_nnx_graph=True)

    def example(start):
        rows = slice(start, start + size)
        return ppo_learner.TrainExample(
            prompt_ids=jnp.asarray(arrays["tokens"][rows, :prompt]),
            prompt_mask=jnp.ones((size, prompt), jnp.int32),
            completion_ids=jnp.asarray(arrays["tokens"][rows, prompt:]),
            completion_mask=jnp.asarray(arrays["mask"][rows]),
            ref_per_token_logps=None,
            advantages=jnp.asarray(arrays["advantages"][rows]),
            returns=jnp.asarray(arrays["returns"][rows]),
            old_per_token_logps=jnp.asarray(arrays["old_log_probs"][rows]),
            old_values=jnp.asarray(arrays["values"][rows]),
        )

    examples = [example(start) for start in range(0, steps * size, size)]

    def update():
        losses = np.zeros(2)
        for batch in examples:
            actor_result, critic_result = actor_step(batch), critic_step(batch)
            losses += [float(actor_result[0]) / steps, 2 * float(critic_result[0]) / steps]
        jax.block_until_ready(nnx.state(actor.model))
        jax.block_until_ready(nnx.state(critic.model))
        return losses

    first_losses = update()  # compiles; every later call is one full update
    versions = {"tunix": tunix.__version__, "jax": jax.__version__}
    report(ready=True, start_seconds=time.perf_counter() - started, versions=versions)
    serve(update, first_losses)


if __name__ == "__main__":
    main()
