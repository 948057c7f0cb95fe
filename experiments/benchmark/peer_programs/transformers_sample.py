# pyright: reportMissingImports=false
"""transformers' `generate`: a peer of `experiments.benchmark sample`.

Needs torch and transformers. Samples at temperature 1 from the full vocabulary. The batch runs
until its longest row ends; the caller counts only the tokens that were requested. The dynamic and
the static cache are each timed once, and the faster one is timed.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers


def report(**values):
    print(json.dumps(values), flush=True)


def main():
    started = time.perf_counter()
    job = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(job["cores"])
    arrays = np.load(job["arrays"])
    prompts = torch.tensor(arrays["tokens"][:, : job["prompt"]]).long()
    steps = int(arrays["lengths"].max())
    model = transformers.AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32)
    model.eval()

    @torch.inference_mode()
    def sample(cache, count):
        out: Any = model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            min_new_tokens=count,
            max_new_tokens=count,
            pad_token_id=job["pad"],
            eos_token_id=None,
            cache_implementation=cache,
        )
        assert out.shape[1] == job["prompt"] + count

    def seconds(cache):
        sample(cache, 2)
        start = time.perf_counter()
        sample(cache, max(steps // 4, 2))
        return time.perf_counter() - start

    cache_seconds = {"dynamic": seconds("dynamic"), "static": seconds("static")}
    best = min(cache_seconds, key=cache_seconds.__getitem__)
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    report(ready=True, start_seconds=time.perf_counter() - started, versions=versions)
    for _ in sys.stdin:
        start, processor = time.perf_counter(), time.process_time()
        sample(best, steps)
        report(
            seconds=time.perf_counter() - start,
            cpu_seconds=time.process_time() - processor,
            cache=best,
        )


if __name__ == "__main__":
    main()
