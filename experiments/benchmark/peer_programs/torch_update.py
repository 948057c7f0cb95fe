# pyright: reportMissingImports=false
"""PPO's update in PyTorch on transformers' Qwen3: a peer of `experiments.benchmark update`.

Needs torch and transformers. Runs eagerly, or with both losses under `torch.compile` (job
"torch_compile").
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
import transformers


def report(**values):
    print(json.dumps(values), flush=True)


def serve(update):
    """Runs a timed update for every line of stdin."""
    for _ in sys.stdin:
        start, processor = time.perf_counter(), time.process_time()
        actor_loss, critic_loss = update()
        report(
            seconds=time.perf_counter() - start,
            cpu_seconds=time.process_time() - processor,
            actor_loss=actor_loss,
            critic_loss=critic_loss,
        )


class Critic(torch.nn.Module):
    """The model's layers with a linear value head instead of the language-model head."""

    def __init__(self, directory, kernel):
        super().__init__()
        model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
        self.trunk = model.model
        self.kernel = torch.nn.Parameter(torch.tensor(kernel))
        self.bias = torch.nn.Parameter(torch.zeros(()))

    def forward(self, tokens):
        hidden = self.trunk(input_ids=tokens, use_cache=False).last_hidden_state
        return hidden @ self.kernel + self.bias


def main():
    started = time.perf_counter()
    job = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(job["cores"])
    arrays = {k: torch.tensor(v) for k, v in np.load(job["arrays"]).items()}
    prompt, size = job["prompt"], job["microbatch"]
    actor = transformers.AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32)
    critic = Critic(job["critic"], arrays["value_kernel"].numpy())
    optimizers = [
        torch.optim.AdamW(model.parameters(), lr=job[f"{name}_learning_rate"], weight_decay=0.0)
        for name, model in (("actor", actor), ("critic", critic))
    ]
    mask = arrays["mask"]
    lengths = mask.sum(1, keepdim=True).clamp(min=1)
    weights = mask / lengths / mask.shape[0]
    count = mask.sum()

    # Padding is on the right, so under the causal mask no real token sees it.
    def actor_loss(tokens, targets, old, advantages, weights):
        hidden = actor.model(input_ids=tokens, use_cache=False).last_hidden_state
        logits = actor.lm_head(hidden[:, prompt - 1 : -1])
        log_p = torch.log_softmax(logits, dim=-1)
        log_prob = log_p.gather(-1, targets[..., None])[..., 0]
        entropy = -(log_p.exp() * log_p).sum(-1)
        ratio = torch.exp(log_prob - old)
        clipped = ratio.clamp(1 - job["clip"], 1 + job["clip"])
        surrogate = torch.minimum(ratio * advantages, clipped * advantages)
        return -(weights * (surrogate + job["entropy_coef"] * entropy)).sum()

    def critic_loss(tokens, returns, mask):
        values = critic(tokens)[:, prompt - 1 : -1]
        return (mask * (values - returns) ** 2).sum() / count

    if job["peer"] == "torch_compile":
        actor_loss, critic_loss = torch.compile(actor_loss), torch.compile(critic_loss)

    def backward(rows):
        tokens = arrays["tokens"][rows].long()
        old, advantages = (arrays[k][rows] for k in ("old_log_probs", "advantages"))
        loss = actor_loss(tokens, tokens[:, prompt:], old, advantages, weights[rows])
        loss.backward()
        value_loss = critic_loss(tokens, arrays["returns"][rows], mask[rows])
        value_loss.backward()
        return loss.item(), value_loss.item()

    def update():
        losses = [0.0, 0.0]
        for start in range(0, mask.shape[0], size):
            for i, loss in enumerate(backward(slice(start, start + size))):
                losses[i] += loss
        for model, optimizer in zip((actor, critic), optimizers, strict=True):
            torch.nn.utils.clip_grad_norm_(model.parameters(), job["max_grad_norm"])
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return losses

    backward(slice(0, size))  # compiles and warms up
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    report(ready=True, start_seconds=time.perf_counter() - started, versions=versions)
    serve(update)


if __name__ == "__main__":
    main()
