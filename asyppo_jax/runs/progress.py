"""Console output of a run: sizes at its start, a progress bar, and samples of its answers."""

import contextlib
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TextIO

import jax
from jax.sharding import Mesh
from tqdm import tqdm

from asyppo_jax.algorithm.learning_rates import describe_early_ends
from asyppo_jax.config import Config, MeshConfig
from asyppo_jax.runtime.phase_meshes import critics_mesh, sampling_mesh


class Progress:
    """A progress bar over the steps of a run, or one line per step if the output is no terminal.

    `with progress.phase("sample"):` shows the phase and measures its time; `take_times` returns the
    times as metrics. JAX returns before a computation ends, so block on its result inside the
    phase: otherwise its time counts for the next phase. If `is_writer` is false, nothing is shown.
    `stream` is by default the standard error of a terminal, and elsewhere the standard output.
    """

    def __init__(
        self,
        num_steps: int,
        start_step: int = 0,
        *,
        is_writer: bool = True,
        stream: TextIO | None = None,
    ) -> None:
        # A notebook shows standard error as if something had failed.
        default = sys.stderr if sys.stderr.isatty() else sys.stdout
        self._stream = default if stream is None else stream
        self._num_steps, self._is_writer = num_steps, is_writer
        self._times: dict[str, float] = {}
        self._held_out: float | None = None  # the latest result
        self._last = time.perf_counter()
        self._seconds: list[float] = []  # of the steps that compiled nothing
        self._seen: set[str] = set()  # the metrics so far: a new one means that a program is new
        self._has_bar = is_writer and self._stream.isatty()
        self._bar = tqdm(
            total=num_steps,
            initial=start_step,
            file=self._stream,
            disable=not self._has_bar,
            unit=" step",
            dynamic_ncols=True,
            mininterval=0,  # steps are slow, so draw each of them
            bar_format="{desc:<8} {n_fmt}/{total_fmt} |{bar:20}| {rate_fmt}{postfix}",
        )

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Shows and times a phase; times with the same name within a step are summed."""
        self._bar.set_description_str(name)
        started = time.perf_counter()
        try:
            yield
        finally:
            metric = f"time/{name}_s"
            self._times[metric] = self._times.get(metric, 0.0) + time.perf_counter() - started

    def take_times(self) -> dict[str, float]:
        """The phase times since the last call, `{"time/sample_s": seconds, ...}`."""
        times, self._times = self._times, {}
        return times

    def finish_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Shows that `step` steps are finished, with the most important of `metrics`."""
        self._held_out = metrics.get("evaluate/accuracy", self._held_out)
        numbers = _numbers(metrics, self._held_out)
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        if metrics.keys() <= self._seen:
            self._seconds.append(seconds)
        self._seen |= metrics.keys()
        timing = f"{seconds:.1f} s"
        if self._seconds and step < self._num_steps:
            left = sum(self._seconds) / len(self._seconds) * (self._num_steps - step)
            timing += f", {tqdm.format_interval(left)} left"
        if self._has_bar:
            self._bar.set_postfix_str(", ".join([*numbers, timing]), refresh=False)
            self._bar.update(step - self._bar.n)
            return
        count = f"step {step:>{len(str(self._num_steps))}}/{self._num_steps}"
        self.print("  ".join([count, *numbers, timing]))

    def print(self, text: str) -> None:
        """Prints a text above the bar; use it instead of the built-in `print`."""
        if self._is_writer:
            tqdm.write(text, file=self._stream)
            self._stream.flush()

    def close(self) -> None:
        """Stops the bar and leaves it visible."""
        self._bar.close()


def _numbers(metrics: Mapping[str, float], held_out: float | None) -> list[str]:
    reward, entropy = metrics.get("rollout/reward_mean"), metrics.get("actor/entropy")
    values = {"reward": reward, "held-out": held_out, "entropy": entropy}
    numbers = [f"{label} {value:.3f}" for label, value in values.items() if value is not None]
    if "rollout/tokens_per_s" in metrics:
        numbers.append(f"{metrics['rollout/tokens_per_s']:,.0f} tokens/s")
    return numbers


def describe_devices(mesh: Mesh, config: MeshConfig) -> str:
    """The devices of a run, its meshes, and the number of processes if it is not one."""
    kind, processes = mesh.devices.flat[0].device_kind, jax.process_count()
    shared = f" in {processes} processes" if processes > 1 else ""
    meshes = {"mesh": mesh, "of sampling": sampling_mesh(config, mesh)}
    meshes["of the critics"] = critics_mesh(config, mesh)
    own = {name: of for name, of in meshes.items() if name == "mesh" or of != mesh}
    sizes = [f"{name} {_sizes(of)}" for name, of in own.items()]
    return f"devices   {mesh.size} x {kind}{shared}; {'; '.join(sizes)}"


def _sizes(mesh: Mesh) -> str:
    return ", ".join(f"{name}={size}" for name, size in mesh.shape.items())


def describe_sizes(config: Config, first_step: int = 0) -> str:
    """The method, and a table of batch sizes: of a step, the actor and the critics.

    `first_step` is the step that a resumed run goes on from.
    """
    sampling, batching, algorithm = config.sampling, config.batching, config.algorithm
    group, num_critics = sampling.group_size, algorithm.num_critics
    batch, length = sampling.num_prompts * group, sampling.max_completion_length
    total, shared = config.prompt.max_length + length, batching.rows_per_prompt
    shares = f"; {shared} completions share a pass over their prompt" if shared > 1 else ""
    lines = [
        f"method    {algorithm.method}",
        *([f"options   {config.options}"] if config.options else []),
        f"step      {sampling.num_prompts:,} prompts x {group:,} responses = {batch:,} sequences",
        f"sequence  prompt {config.prompt.max_length:,} + completion {length:,} = {total:,} tokens"
        + shares,
        f"tokens    at most {batch * length:,} sampled per step",
        "",
    ]
    actor_sizes = batch, batching.actor_minibatch_size, batching.microbatch_size
    columns = [("actor", algorithm.actor_epochs, *actor_sizes)]
    if num_critics:
        each, epochs = config.critic_sizes, algorithm.critic_epochs
        names = {num_critics: f"{num_critics} critic{'s' * (num_critics > 1)}"}
        if num_critics > 1:
            names[1] = "each critic"
        columns += [
            (name, epochs, n * each.responses, n * each.minibatch, n * each.microbatch)
            for n, name in names.items()
        ]
    rows: dict[str, list[str]] = {"": [name for name, *_ in columns]}
    for _, epochs, responses, minibatch, microbatch in columns:
        sizes = {
            "epoch (responses, one pass)": responses,
            "minibatch (one gradient)": minibatch,
            "microbatch (one forward)": microbatch,
            "minibatches per epoch": responses // minibatch,
            "epochs per step": epochs,
            "optimizer updates per step": responses // minibatch * epochs,
        }
        for label, size in sizes.items():
            rows.setdefault(label, []).append(f"{size:,}")
    for label, cells in rows.items():
        lines.append("".join([f"{label:<27}", *(f"{cell:>14}" for cell in cells)]))
    if num_critics and algorithm.critic_warmup_steps > first_step:
        lines += ["", f"the first {algorithm.critic_warmup_steps} steps update the critics only"]
    if ends := describe_early_ends(config):
        lines += ["", *ends]
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
    """Prompts, completions and rewards as text; the middle of longer texts is cut out."""
    rows = list(zip(prompts, completions, rewards, reward_valid, strict=True))
    lines = []
    for number, (prompt, completion, reward, valid) in enumerate(rows, start=1):
        verdict = f"reward {float(reward):.2f}" if valid else "reward invalid"
        lines.append(f"-- step {step}, sample {number} of {len(rows)}: {verdict} --")
        for name, text in (("prompt", prompt), ("completion", completion)):
            lines += [f"{name}:", textwrap.indent(_cut(text.strip(), max_characters), "    ")]
    return "\n".join(lines)


def _cut(text: str, max_characters: int) -> str:
    num_cut = len(text) - max_characters
    if num_cut <= 0:
        return text
    head = max_characters // 2
    return f"{text[:head]}\n[... {num_cut:,} characters ...]\n{text[head + num_cut :]}"
