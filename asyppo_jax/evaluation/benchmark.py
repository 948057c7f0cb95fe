"""An actor on a benchmark: k answers per problem from the training sampler, graded and summarised.

The random numbers of an answer depend on the seed, the problem, the sample index and the batch
size, but not on where a run started: an evaluation that is killed and resumed ends with the same
answers.
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
from asyppo_jax.config.ranges import check_fields
from asyppo_jax.evaluation.answer_file import Answer, AnswerFile, Verdict
from asyppo_jax.evaluation.statistics import (
    average_at_k,
    average_interval,
    length_summary,
    pass_at_k,
    powers_of_two,
)
from asyppo_jax.runtime.fingerprints import MODEL_SUFFIXES, combined, fingerprints
from asyppo_jax.runtime.paths import resolve_directory, state_directory
from asyppo_jax.sampling import DecodingOptions
from asyppo_jax.sampling.loaded import LoadedActor
from asyppo_jax.sampling.sampler import read_answers
from asyppo_jax.tasks.benchmarks import Benchmark, BenchmarkSettings, load_problems
from asyppo_jax.tasks.prompts import Prompt, has_date, missing_first_token, tokenize_problem
from asyppo_jax.tasks.records import Record, digest
from asyppo_jax.tasks.rewards import RewardPool
from asyppo_jax.tasks.rewards.functions import find_rewards
from asyppo_jax.tasks.rewards.graders import has_answer


def evaluate_benchmark(
    actor: LoadedActor,
    benchmark: Benchmark,
    output: str,
    *,
    data_dir: str,
    settings: BenchmarkSettings | None = None,
) -> dict[str, Any]:
    """The summary of a benchmark, after sampling and grading the answers missing from `output`.

    Every answer counts. An answer without anything to grade, or on which the grader failed, counts
    as wrong and is also counted separately. Answers on which the grader failed in an earlier call
    are graded again.

    Raises:
        ConfigError, DataError, AnswerFileError: with a one-sentence message.
    """
    s = BenchmarkSettings() if settings is None else settings
    _check(s, actor)
    check_grader(benchmark, s)  # before anything is written
    records = load_problems(benchmark, data_dir)[: s.num_problems]
    prompt = choose_prompt(actor, benchmark, s)
    prompts = [Prompt(tokenize_problem(r.problem, actor.tokenizer, prompt), r) for r in records]
    run_length = actor.config.sampling.max_completion_length
    length = s.max_completion_length or benchmark.max_completion_length or run_length
    options = actor.options(s, length)
    actor.report_prompts(prompts, length, prompt)
    if sentence := missing_first_token(actor.tokenizer, prompt):
        print(sentence, file=sys.stderr)
    settings_of_answers = _settings_of_answers(actor, benchmark, s, prompt, length, records)
    inputs = {
        "problems": f"the problems or answers of {benchmark.title} ({benchmark.local.path})",
        "weights": f"the weights of {actor.path}",
    }
    file = AnswerFile(output, settings_of_answers, inputs)
    started = time.perf_counter()
    num_before = _sample_missing(actor, prompts, options, benchmark, s, file)
    seconds = time.perf_counter() - started
    num_made = len(file.answers) - num_before
    tokens = sum(a["length"] for a in file.answers[num_before:])
    summary = summarize_answers(benchmark, file.answers, s.num_samples) | {
        "seconds": seconds,  # this and the next two: for this call only
        "answers_made": num_made,
        "tokens_per_s": tokens / seconds if num_made else 0.0,
    }
    file.write_summary(summary)
    return summary


def _check(s: BenchmarkSettings, actor: LoadedActor) -> None:
    check_fields(s)
    if s.temperature == 0 and s.num_samples > 1:
        raise ConfigError(
            f"num_samples is {s.num_samples} at temperature 0, where all answers are the same; "
            "set num_samples to 1, or temperature above 0"
        )
    data = actor.mesh.shape["data"]
    if s.batch_size % data:
        raise ConfigError(
            f"batch_size is {s.batch_size}; make it a multiple of the data axis, {data} devices"
        )
    if s.slots and (s.slots % s.num_samples or s.batch_size * s.num_samples % s.slots):
        raise ConfigError(
            f"slots is {s.slots}; make it a multiple of num_samples = {s.num_samples} that divides "
            f"batch_size * num_samples = {s.batch_size * s.num_samples}"
        )
    if jax.process_count() > 1:
        raise ConfigError("a benchmark runs in a single process; start it without --distributed")


def check_grader(benchmark: Benchmark, s: BenchmarkSettings, setting: str = "the grader") -> None:
    """Raises `ConfigError` if the benchmark's graders cannot be used; `setting` is their name."""
    config = _reward_config(benchmark, s)
    check_fields(config, "config.reward.")
    find_rewards(config, setting=setting)


def _reward_config(benchmark: Benchmark, s: BenchmarkSettings) -> RewardConfig:
    return RewardConfig(benchmark.grader, s.time_limit, s.num_workers, benchmark.weights)


def choose_prompt(
    actor: LoadedActor, benchmark: Benchmark, settings: BenchmarkSettings
) -> PromptConfig:
    """The prompt config: from the settings, else from the run, else from the benchmark.

    Raises:
        ConfigError: the template is "chat", but the tokenizer has no chat template.
    """
    prompt = actor.config.prompt if actor.of_run else benchmark.prompt
    changes = {"template": settings.template, "system_prompt": settings.system_prompt}
    prompt = dataclasses.replace(prompt, **{k: v for k, v in changes.items() if v is not None})
    if prompt.template == "chat" and not actor.tokenizer.chat_template:
        raise ConfigError(
            "the model's tokenizer has no chat template; set --template to a text with {problem}, "
            r"such as '{problem}\nReason step by step, and put your final answer within \boxed{}.'"
        )
    return prompt


def _settings_of_answers(
    actor: LoadedActor,
    benchmark: Benchmark,
    s: BenchmarkSettings,
    prompt: PromptConfig,
    length: int,
    records: Sequence[Record],
) -> dict[str, Any]:
    """All that can change an answer or its score; what only changes the speed is left out."""
    settings = dataclasses.asdict(s)
    del settings["slots"], settings["num_workers"], settings["time_limit"]
    if benchmark.weights:  # of several graders
        settings["weights_of_graders"] = list(benchmark.weights)
    if prompt.template == "chat" and has_date(actor.tokenizer):
        settings["date"] = prompt.date
    return settings | {
        "template": prompt.template,
        "system_prompt": prompt.system_prompt,
        "max_completion_length": length,
        "benchmark": benchmark.name,
        "grader": benchmark.grader,
        "num_problems": len(records),
        "checkpoint": actor.path,
        "step": actor.step,
        "dtype": str(actor.networks.actor.dtype),
        "problems": digest(records),
        "weights": _hash_weights(actor),
    }


def _hash_weights(actor: LoadedActor) -> str:
    """A hash of the files that the actor was loaded from."""
    if actor.step is None:
        return combined(fingerprints(resolve_directory(actor.path), MODEL_SUFFIXES))
    return combined(fingerprints(state_directory(actor.path, actor.step)))


def _sample_missing(
    actor: LoadedActor,
    prompts: Sequence[Prompt],
    options: DecodingOptions,
    benchmark: Benchmark,
    s: BenchmarkSettings,
    file: AnswerFile,
) -> int:
    """Continues after the last complete batch of `file`; returns the number of earlier answers."""
    samples, total = s.num_samples, len(prompts) * s.num_samples
    num_before = len(file.answers)
    if num_before < total:  # an incomplete batch is sampled again
        num_before -= num_before % (s.batch_size * samples)
        file.rewrite(file.answers[:num_before])
    elif all(a["verdict"] != "ungraded" for a in file.answers):
        return total
    grader_config = _reward_config(benchmark, s)
    interactive = sys.stderr.isatty()
    with (
        jax.set_mesh(actor.mesh),
        RewardPool(grader_config) as grader,
        tqdm(
            total=total,
            initial=num_before,
            desc=benchmark.name,
            unit=" answers",
            dynamic_ncols=True,
            mininterval=0.1 if interactive else 30,
        ) as bar,
    ):
        _regrade(file, prompts, grader)
        for start in range(num_before // samples, len(prompts), s.batch_size):
            batch = list(prompts[start : start + s.batch_size])
            key = jax.random.fold_in(jax.random.key(s.seed), start)
            answers = _sample(actor, batch, options, s.batch_size, key)
            for answer in answers:
                answer["index"] += start
            _grade(answers, prompts, grader)
            file.append(answers)
            average = sum(a["score"] for a in file.answers) / len(file.answers)
            bar.set_postfix_str(f"avg@{samples} {average:.3f}", refresh=False)
            bar.update(len(answers))
    return num_before


def _sample(
    actor: LoadedActor, batch: list[Prompt], options: DecodingOptions, size: int, key: jax.Array
) -> list[Answer]:
    """Ungraded answers to a batch; `index` starts at 0 for its first problem."""
    sampler = actor.sampler(options, max(len(p.tokens) for p in batch))
    # The last batch is filled up, because a smaller batch would be compiled again. The added
    # prompts come last, so that they change no answer.
    filler = min(batch, key=lambda p: len(p.tokens))
    prompts = batch + [filler] * (size - len(batch))
    answers = read_answers(sampler(actor.params, prompts, key, actor.mesh), prompts, sampler)
    samples = options.group_size
    return [
        Answer(
            index=row // samples,
            sample=row % samples,
            problem=answers.problems[row],
            answer=answers.answers[row],
            completion=answers.completions[row],
            verdict="ungraded",
            score=0.0,
            truncated=bool(answers.truncated[row]),
            length=int(answers.lengths[row]),
        )
        for row in range(len(batch) * samples)
    ]


def _grade(answers: list[Answer], prompts: Sequence[Prompt], grader: RewardPool) -> None:
    """Writes verdicts, scores and what the grader says of them into the answers."""
    problems, completions, references = (
        [a[name] for a in answers] for name in ("problem", "completion", "answer")
    )
    records = [prompts[a["index"]].record.columns for a in answers]
    scores = grader.score(problems, completions, references, records)
    for i, answer in enumerate(answers):
        answer["score"] = float(scores.rewards[i])
        found = answer["score"] or has_answer(problems[i], completions[i], references[i])
        answer["verdict"] = _verdict(bool(scores.valid[i]), answer["score"], not found)
        details = scores.details[i]
        for name in ("extracted", "compared", "reason"):
            answer[name] = details.get(name, "")


def _regrade(file: AnswerFile, prompts: Sequence[Prompt], grader: RewardPool) -> None:
    """Grades the ungraded answers again: the machine was perhaps busy, or the time limit short."""
    ungraded = [a for a in file.answers if a["verdict"] == "ungraded"]
    if ungraded:
        _grade(ungraded, prompts, grader)
        file.rewrite(file.answers)


def _verdict(valid: bool, score: float, without_answer: bool) -> Verdict:
    if not valid:
        return "ungraded"
    if without_answer:
        return "no_answer"
    return "right" if score == 1 else "wrong"


def summarize_answers(
    benchmark: Benchmark, answers: Sequence[Answer], num_samples: int
) -> dict[str, Any]:
    """The metrics of a benchmark, computed from all its answers, as values for JSON."""
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
    """A text table with one line per benchmark."""
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
