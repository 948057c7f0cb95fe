# pyright: reportMissingImports=false
"""tunix's sampler on its Qwen3: a peer of `experiments.benchmark sample`.

Needs google-tunix. The batch runs until its longest row ends, so all rows are sampled to that
length at no extra cost; the caller counts only the tokens that were requested.
"""

import json
import sys
import time
from pathlib import Path

import jax
import numpy as np
import tunix
from tunix.generate import sampler as sampling
from tunix_model import load, report


class Numbers:
    """A tokenizer for texts that are token ids separated by spaces; no token ends a text."""

    def __init__(self, pad):
        self._pad = pad

    def encode(self, text):
        return [int(word) for word in text.split()]

    def decode(self, ids):
        return ""

    def bos_id(self):
        return 0  # not used: `encode` adds no such token

    def eos_id(self):
        return -1

    def pad_id(self):
        return self._pad


def main():
    started = time.perf_counter()
    job = json.loads(Path(sys.argv[1]).read_text())
    arrays = dict(np.load(job["arrays"]))
    model, prompt = load(job["model"]), job["prompt"]
    steps = int(arrays["lengths"].max())
    config = model.config
    cache = sampling.CacheConfig(
        cache_size=prompt + steps,
        num_layers=config.num_layers,
        num_kv_heads=config.num_kv_heads,
        head_dim=config.head_dim,
    )
    sampler = sampling.Sampler(model, Numbers(job["pad"]), cache)
    texts = [" ".join(map(str, row)) for row in arrays["tokens"][:, :prompt]]

    def sample(seed):
        out = sampler(
            texts,
            max_generation_steps=steps,
            max_prompt_length=prompt,
            eos_tokens=[-1],
            temperature=1.0,
            top_p=1.0,
            seed=seed,
        )
        return [len(tokens) for tokens in out.tokens]

    sample(0)
    versions = {"tunix": tunix.__version__, "jax": jax.__version__}
    report(ready=True, start_seconds=time.perf_counter() - started, versions=versions)
    for run, _ in enumerate(sys.stdin):
        start, processor = time.perf_counter(), time.process_time()
        lengths = sample(run + 1)
        seconds = time.perf_counter() - start
        assert min(lengths) >= steps, f"a row ended after {min(lengths)} tokens"
        report(seconds=seconds, cpu_seconds=time.process_time() - processor)


if __name__ == "__main__":
    main()
