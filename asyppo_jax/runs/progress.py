"""What a run prints: the sizes at its start, a progress bar, samples of its answers."""

import contextlib
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TextIO

from tqdm import tqdm

from asyppo_jax.config import Config


class Progress:
    """A bar over the steps of a run, or one line a step where the output is not a terminal.

    `with progress.phase("sample"):` shows the phase and measures it; `take_times` hands over what
    was measured, as metrics. JAX returns before a computation ends: block on its result inside of
    the phase, or the next phase is billed for it. Where `is_writer` is false nothing is shown.
    """

    def __init__(
        self,
        num_steps: int,
        *,
        start_step: int = 0,
        is_writer: bool = True,
        stream: TextIO | None = None,
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._num_steps, self._start_step, self._is_writer = num_steps, start_step, is_writer
        self._times: dict[str, float] = {}
        self._accuracy: float | None = None
        self._started = self._last = time.perf_counter()
        self._has_bar = is_writer and self._stream.isatty()
        self._bar = tqdm(
            total=num_steps,
            initial=start_step,
            file=self._stream,
            disable=not self._has_bar,
            unit=" step",
            dynamic_ncols=True,
            mininterval=0,  # a step is slow: draw each one
            bar_format="{desc:<8} {n_fmt}/{total_fmt} |{bar:20}| {rate_fmt}, {remaining}{postfix}",
        )

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Shows and times a phase; times of one name within a step add up."""
        self._bar.set_description_str(name)
        started = time.perf_counter()
        try:
            yield
        finally:
            metric = f"time/{name}_s"
            self._times[metric] = self._times.get(metric, 0.0) + time.perf_counter() - started

    def take_times(self) -> dict[str, float]:
        """`{"time/sample_s": seconds, ...}` since the last call."""
        times, self._times = self._times, {}
        return times

    def finish_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Moves on to `step` finished steps, with the numbers that matter out of `metrics`."""
        self._accuracy = metrics.get("evaluate/accuracy", self._accuracy)
        numbers = _numbers(metrics, self._accuracy)
        if self._has_bar:
            self._bar.set_postfix_str(", ".join(numbers), refresh=False)
            self._bar.update(step - self._bar.n)
            return
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        left = (now - self._started) / max(step - self._start_step, 1) * (self._num_steps - step)
        counted = f"step {step:>{len(str(self._num_steps))}}/{self._num_steps}"
        timed = f"{seconds:.1f} s, {tqdm.format_interval(left)} left"
        self.print("  ".join([counted, *numbers, timed]))

    def print(self, text: str) -> None:
        """Prints a text above the bar; use it in place of `print` while the bar is shown."""
        if self._is_writer:
            tqdm.write(text, file=self._stream)
            self._stream.flush()

    def close(self) -> None:
        """Leaves the bar as it stands."""
        self._bar.close()


def _numbers(metrics: Mapping[str, float], accuracy: float | None) -> list[str]:
    reward, entropy = metrics.get("rollout/reward_mean"), metrics.get("actor/entropy")
    values = {"reward": reward, "accuracy": accuracy, "entropy": entropy}
    numbers = [f"{label} {value:.3f}" for label, value in values.items() if value is not None]
    if "rollout/tokens_per_s" in metrics:
        numbers.append(f"{metrics['rollout/tokens_per_s']:,.0f} tokens/s")
    return numbers


def describe_sizes(config: Config) -> str:
    """The plan of sizes as a table: a step, and what the actor and the critics make of it."""
    sampling, batching, algorithm = config.sampling, config.batching, config.algorithm
    group, critics = sampling.group_size, algorithm.num_critics
    batch, length = sampling.num_prompts * group, sampling.max_completion_length
    total, shared = config.prompt.max_length + length, batching.rows_per_prompt
    shares = f"; {shared} completions share a pass over their prompt" if shared > 1 else ""
    lines = [
        f"step      {sampling.num_prompts:,} prompts x {group:,} responses = {batch:,} sequences",
        f"sequence  prompt {config.prompt.max_length:,} + completion {length:,} = {total:,} tokens"
        + shares,
        f"tokens    {batch * length:,} sampled a step, at most",
        "",
    ]
    actor_sizes = algorithm.actor_epochs, batching.actor_minibatch_size, batching.microbatch_size
    columns = [("actor", 1, *actor_sizes)]
    if critics:
        of_all = critics * batching.critic_microbatch(critics)
        critic_sizes = algorithm.critic_epochs, batching.critic_minibatch_size, of_all
        columns.append((f"{critics} critic{'s' * (critics > 1)}", 1, *critic_sizes))
        if critics > 1:
            columns.append(("each critic", critics, *critic_sizes))
    rows: dict[str, list[str]] = {"": [name for name, *_ in columns]}
    for _, share, epochs, minibatch, microbatch in columns:
        sizes = {
            "epoch (responses, one pass)": batch // share,
            "minibatch (one gradient)": minibatch // share,
            "microbatch (one forward)": microbatch // share,
            "minibatches an epoch": batch // minibatch,
            "epochs a step": epochs,
            "optimiser updates a step": batch // minibatch * epochs,
        }
        for label, size in sizes.items():
            rows.setdefault(label, []).append(f"{size:,}")
    for label, cells in rows.items():
        lines.append("".join([f"{label:<27}", *(f"{cell:>14}" for cell in cells)]))
    if not critics:
        lines += ["", "no critics: advantages are normalised within each group of responses"]
    elif algorithm.critic_warmup_steps:
        lines += ["", f"the first {algorithm.critic_warmup_steps} steps update the critics only"]
    return "\n".join(lines)


def format_samples(
    step: int,
    prompts: Sequence[str],
    completions: Sequence[str],
    rewards: Sequence[float],
    reward_valid: Sequence[bool],
    *,
    max_characters: int = 1200,
) -> str:
    """Some answers as a block of text; a longer prompt or completion loses its middle."""
    rows = list(zip(prompts, completions, rewards, reward_valid, strict=True))
    lines = []
    for number, (prompt, completion, reward, valid) in enumerate(rows, start=1):
        verdict = f"reward {float(reward):.2f}" if valid else "reward invalid"
        lines.append(f"-- step {step}, sample {number} of {len(rows)}: {verdict} --")
        for name, text in (("prompt", prompt), ("completion", completion)):
            lines += [f"{name}:", textwrap.indent(_cut(text.strip(), max_characters), "    ")]
    return "\n".join(lines)


def _cut(text: str, max_characters: int) -> str:
    left_out = len(text) - max_characters
    if left_out <= 0:
        return text
    head = max_characters // 2
    return f"{text[:head]}\n[... {left_out:,} characters ...]\n{text[head + left_out :]}"
