"""An actor on a benchmark: every problem k times with the training sampler, graded and counted.

Which noise an answer gets depends on the seed, its problem, its number and the batch size, never on
where a run began: one that was killed and goes on ends with the same answers.
"""

import dataclasses
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from asyppo_jax.config import ConfigError, PromptConfig, RewardConfig
from asyppo_jax.config.checks import check_truncation
from asyppo_jax.evaluation.answer_file import Answer, AnswerFile, Verdict
from asyppo_jax.evaluation.statistics import (
    average_at_k,
    average_interval,
    length_summary,
    pass_at_k,
    powers_of_two,
)
from asyppo_jax.sampling import DecodingOptions
from asyppo_jax.sampling.loaded import LoadedActor
from asyppo_jax.sampling.sampler import read_answers
from asyppo_jax.tasks.benchmarks import Benchmark, BenchmarkSettings, load_problems
from asyppo_jax.tasks.prompts import Prompt, tokenize_problem
from asyppo_jax.tasks.rewards import RewardPool
from asyppo_jax.tasks.tokenizers import pad_token_id, stop_token_ids


def evaluate_benchmark(
    actor: LoadedActor,
    benchmark: Benchmark,
    output: str,
    *,
    data_dir: str,
    settings: BenchmarkSettings | None = None,
) -> dict[str, Any]:
    """Samples, grades and writes what is not yet in `output`; returns the summary of all.

    Every answer counts: one without anything to grade, or on which the grader failed, is wrong, and
    counted apart besides. Those on which it failed before are graded once more.

    Raises:
        ConfigError, DataError, AnswerFileError: each one sentence.
    """
    s = BenchmarkSettings() if settings is None else settings
    _check(s, actor)
    records = load_problems(benchmark, data_dir)[: s.num_problems]
    prompt = choose_prompt(actor, benchmark, s)
    prompts = [Prompt(tokenize_problem(r.problem, actor.tokenizer, prompt), r) for r in records]
    length = s.max_completion_length or benchmark.max_completion_length
    file = AnswerFile(output, _fingerprint(actor, benchmark, s, prompt, length, len(records)))
    stop_tokens = actor.config.sampling.stop_tokens
    options = DecodingOptions(
        **s.truncation(),
        group_size=s.num_samples,
        max_completion_length=length,
        stop_ids=stop_token_ids(actor.tokenizer, actor.config.actor.path, stop_tokens),
        pad_id=pad_token_id(actor.tokenizer),
        slots=s.slots,
    )
    started = time.perf_counter()
    before = _answer_the_rest(actor, prompts, options, benchmark, s, file)
    seconds = time.perf_counter() - started
    done = len(file.answers) - before
    tokens = sum(a["length"] for a in file.answers[before:])
    summary = summarize_answers(benchmark, file.answers, s.num_samples) | {
        "seconds": seconds,  # of this call alone, as are the next two
        "answers_made": done,
        "tokens_per_s": tokens / seconds if done else 0.0,
    }
    file.write_summary(summary)
    return summary


def _check(s: BenchmarkSettings, actor: LoadedActor) -> None:
    for name in ("num_samples", "batch_size"):
        if getattr(s, name) < 1:
            raise ConfigError(f"{name} is {getattr(s, name)}; it must be 1 or more")
    check_truncation("", s)
    if s.temperature == 0 and s.num_samples > 1:
        raise ConfigError(
            f"num_samples is {s.num_samples} at temperature 0, where all would be the same answer; "
            "set it to 1, or a temperature"
        )
    data = actor.mesh.shape["data"]
    if s.batch_size % data:
        raise ConfigError(f"batch_size is {s.batch_size}; make it a multiple of the {data} devices")
    if s.slots and (s.slots % s.num_samples or s.batch_size * s.num_samples % s.slots):
        raise ConfigError(
            f"slots is {s.slots}; make it a multiple of num_samples = {s.num_samples} that divides "
            f"batch_size * num_samples = {s.batch_size * s.num_samples}"
        )
    if jax.process_count() > 1:
        raise ConfigError("a benchmark runs in one process; start it without --distributed")


def choose_prompt(
    actor: LoadedActor, benchmark: Benchmark, settings: BenchmarkSettings
) -> PromptConfig:
    """How a problem is asked: as the settings say, else as the run trained, else as the benchmark.

    Raises:
        ConfigError: the chat template is wanted of a tokenizer that has none.
    """
    prompt = benchmark.prompt if actor.step is None else actor.config.prompt
    given = {"template": settings.template, "system_prompt": settings.system_prompt}
    prompt = dataclasses.replace(prompt, **{k: v for k, v in given.items() if v is not None})
    if prompt.template == "chat" and not actor.tokenizer.chat_template:
        raise ConfigError(
            "the model's tokenizer has no chat template; give --template a text with {problem}, "
            r"such as '{problem}\nReason step by step, and put your final answer within \boxed{}.'"
        )
    return prompt


def _fingerprint(
    actor: LoadedActor,
    benchmark: Benchmark,
    s: BenchmarkSettings,
    prompt: PromptConfig,
    length: int,
    num_problems: int,
) -> dict[str, Any]:
    """All that an answer depends on; what only says how fast it comes is left out."""
    settings = dataclasses.asdict(s)
    del settings["slots"], settings["num_workers"], settings["time_limit"]
    return settings | {
        "template": prompt.template,
        "system_prompt": prompt.system_prompt,
        "max_completion_length": length,
        "benchmark": benchmark.name,
        "grader": benchmark.grader,
        "num_problems": num_problems,
        "checkpoint": actor.path,
        "step": actor.step,
        "dtype": str(actor.networks.actor.dtype),
    }


def _answer_the_rest(
    actor: LoadedActor,
    prompts: Sequence[Prompt],
    options: DecodingOptions,
    benchmark: Benchmark,
    s: BenchmarkSettings,
    file: AnswerFile,
) -> int:
    """Goes on after the last whole batch in `file`; returns how many answers were there before."""
    samples, total = s.num_samples, len(prompts) * s.num_samples
    there = len(file.answers)
    if there < total:  # what is torn of a batch is made anew
        there -= there % (s.batch_size * samples)
        file.rewrite(file.answers[:there])
    elif all(a["verdict"] != "ungraded" for a in file.answers):
        return total
    grading = RewardConfig(benchmark.grader, s.time_limit, s.num_workers)
    looking = RewardConfig("asyppo_jax.tasks.rewards.graders:has_answer", s.time_limit, 1)
    interactive = sys.stderr.isatty()
    with (
        jax.set_mesh(actor.mesh),
        RewardPool(grading) as grader,
        RewardPool(looking) as reader,
        tqdm(
            total=total,
            initial=there,
            desc=benchmark.name,
            unit=" answers",
            dynamic_ncols=True,
            mininterval=0.1 if interactive else 30,
        ) as bar,
    ):
        _grade_again(file, grader, reader)
        for start in range(there // samples, len(prompts), s.batch_size):
            batch = list(prompts[start : start + s.batch_size])
            key = jax.random.fold_in(jax.random.key(s.seed), start)
            answers = _sample(actor, batch, options, s.batch_size, key)
            _grade(answers, grader, reader)
            for answer in answers:
                answer["index"] += start
            file.append(answers)
            right = sum(a["score"] for a in file.answers) / len(file.answers)
            bar.set_postfix_str(f"avg@{samples} {right:.3f}", refresh=False)
            bar.update(len(answers))
    return there


def _sample(
    actor: LoadedActor, batch: list[Prompt], options: DecodingOptions, size: int, key: jax.Array
) -> list[Answer]:
    """Ungraded answers to a batch, `index` counted from its first problem."""
    sampler = actor.sampler(options, max(len(p.tokens) for p in batch))
    # The last batch is filled up: another size would be compiled anew. Its rows come first, so that
    # the filling changes no answer.
    rows = batch + [min(batch, key=lambda p: len(p.tokens))] * (size - len(batch))
    found = read_answers(sampler(actor.params, rows, key, actor.mesh), rows, sampler)
    samples = options.group_size
    return [
        Answer(
            index=row // samples,
            sample=row % samples,
            problem=found.problems[row],
            answer=found.answers[row],
            completion=found.completions[row],
            verdict="ungraded",
            score=0.0,
            truncated=bool(found.truncated[row]),
            length=int(found.lengths[row]),
        )
        for row in range(len(batch) * samples)
    ]


def _grade(answers: list[Answer], grader: RewardPool, reader: RewardPool) -> None:
    """Writes verdicts and scores into the answers."""
    columns = [[a[name] for a in answers] for name in ("problem", "completion", "answer")]
    scores = grader.score(*columns)
    wrong = [i for i in range(len(answers)) if scores.valid[i] and scores.rewards[i] == 0]
    readable = reader.score(*[[column[i] for i in wrong] for column in columns])
    empty = {
        i
        for i, valid, found in zip(wrong, readable.valid, readable.rewards, strict=True)
        if valid and not found
    }
    for i, answer in enumerate(answers):
        answer["score"] = float(scores.rewards[i])
        answer["verdict"] = _verdict(bool(scores.valid[i]), answer["score"], i in empty)


def _grade_again(file: AnswerFile, grader: RewardPool, reader: RewardPool) -> None:
    """Another attempt at what had no grade: the machine may have been busy, or the limit short."""
    ungraded = [a for a in file.answers if a["verdict"] == "ungraded"]
    if ungraded:
        _grade(ungraded, grader, reader)
        file.rewrite(file.answers)


def _verdict(valid: bool, score: float, empty: bool) -> Verdict:
    if not valid:
        return "ungraded"
    if empty:
        return "no_answer"
    return "right" if score == 1 else "wrong"


def summarize_answers(
    benchmark: Benchmark, answers: Sequence[Answer], num_samples: int
) -> dict[str, Any]:
    """The numbers of a benchmark out of all of its answers, ready for JSON."""
    right = np.array([a["score"] for a in answers]).reshape(-1, num_samples)
    num_right = (right == 1).sum(axis=1)
    interval = average_interval(right)
    verdicts = [a["verdict"] for a in answers]
    return {
        "benchmark": benchmark.name,
        "title": benchmark.title,
        "num_problems": len(right),
        "num_samples": num_samples,
        f"avg@{num_samples}": average_at_k(right),
        "interval": [interval.low, interval.high],
        **{f"pass@{k}": pass_at_k(num_samples, num_right, k) for k in powers_of_two(num_samples)},
        "truncated": sum(a["truncated"] for a in answers),
        "no_answer": verdicts.count("no_answer"),
        "ungraded": verdicts.count("ungraded"),
        "length": length_summary(np.array([a["length"] for a in answers])),
    }


def table(summaries: Sequence[dict[str, Any]]) -> str:
    """One line a benchmark, as text."""
    head = ["benchmark", "problems", "avg@k", "95%", "pass@1 … k", "truncated", "no answer"]
    rows = [[*head, "ungraded", "tokens: mean, p90"]]
    for s in summaries:
        k, low, high = s["num_samples"], *s["interval"]
        passes = " ".join(f"{100 * v:.1f}" for n, v in s.items() if n.startswith("pass@"))
        rows.append(
            [
                s["title"],
                str(s["num_problems"]),
                f"@{k} {100 * s[f'avg@{k}']:.1f}",
                f"{100 * low:.1f} – {100 * high:.1f}",
                passes,
                *(
                    f"{s[name]}/{s['num_problems'] * k}"
                    for name in ("truncated", "no_answer", "ungraded")
                ),
                f"{s['length']['mean']:.0f}, {s['length']['p90']:.0f}",
            ]
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows
    )
