"""Model cards: the README.md of an exported network, filled from the files of its run."""

import json
import re
from collections.abc import Sequence
from typing import Any

from etils import epath

from asyppo_jax.config import Config, DataConfig, OptimizerConfig, PromptConfig, RewardConfig
from asyppo_jax.runs.metrics import METRICS_FILE, read_metrics, read_problem_counts
from asyppo_jax.runtime.paths import absolute

_PAPER = "[arXiv 2510.01656](https://arxiv.org/abs/2510.01656)"
_CITATION = """```
@inproceedings{liu2026asyppo,
  title={Asymmetric Proximal Policy Optimization: mini-critics boost {LLM} reasoning},
  author={Liu and Obando-Ceron and Lu and He and Wang and Su and Zheng and Castro and Courville
          and Pan},
  booktitle={ICLR}, year={2026}, note={arXiv:2510.01656}
}
```"""


def actor_card(name: str, workdir: str, step: int, config: Config) -> str:
    """The README.md of an actor: YAML header, method, data, seed, scores, plot, how to load it."""
    num_critics = config.algorithm.num_critics
    method = config.algorithm.method
    sampling, steps = config.sampling, f"{step} steps"
    problems = read_problem_counts(str(absolute(workdir)))
    sections = [
        _header(config, "text-generation"),
        f"# {name}",
        f"{_short_name(config.actor.path)} after {steps} of {method}, trained with asyppo_jax.",
        _table(
            ("setting", "value"),
            [
                ("base model", _base_model(config.actor.path)),
                ("critics", _critic_models(config) if num_critics else "none"),
                ("training problems", _data(config.train_data, problems.get("training"))),
                ("reward", _reward(config.reward)),
                ("seed", config.seed),
                ("steps", f"{step} of {config.num_steps}"),
                (
                    "per step",
                    f"{sampling.num_prompts} problems × {sampling.group_size} answers, "
                    f"{config.algorithm.actor_epochs} epochs",
                ),
                ("answers", f"at most {sampling.max_completion_length} tokens"),
                ("temperature, top-p", f"{sampling.temperature:g}, {sampling.top_p:g}"),
                ("learning rate", _learning_rate(config.actor_optimizer)),
            ],
        ),
        "## Scores",
        _held_out(workdir, step, config),
        _benchmarks(workdir, step),
        "![curves of the run](plots.png)" if (absolute(workdir) / "plots.png").is_file() else "",
        "## How to use it",
        _prompt(config),
        _generate_with_transformers(config.prompt),
        "In JAX:",
        _generate_with_jax(),
        "The licence is that of the base model. All settings are in `run_config.json`.",
        f"## Method\n\n{_PAPER}\n\n{_CITATION}",
    ]
    return _join(sections)


def critic_card(name: str, workdir: str, step: int, config: Config, index: int) -> str:
    """The README.md of critic number `index`."""
    count = config.algorithm.num_critics
    metrics = _metrics_of_step(workdir, step)
    variance = metrics.get(f"critic/explained_variance_{index}")
    explained = (
        f" Its explained variance at that step was {variance:.3f}." if variance is not None else ""
    )
    sections = [
        _header(config, "token-classification"),
        f"# {name}",
        f"Critic {index} of the {count} of a run of {config.algorithm.method}, initialised from "
        f"{_critic_model(config)}, at step {step} of seed {config.seed}; trained with asyppo_jax."
        f"{explained}",
        "It gives the value V(s), the expected reward of an answer, at every token: the logit at "
        "token t depends on the tokens up to and including t. The method uses the "
        f"{'smallest' if config.algorithm.value_aggregation == 'min' else 'mean'} value over "
        f"all critics.{_from_logits(config)}",
        _code(
            "from transformers import AutoModelForTokenClassification, AutoTokenizer",
            "",
            'model = AutoModelForTokenClassification.from_pretrained("DIRECTORY")',
            'tokenizer = AutoTokenizer.from_pretrained("DIRECTORY")',
            'logits = model(**tokenizer("a text", return_tensors="pt")).logits',
            *_values_from_logits(config),
        ),
        "In JAX, all critics of the run at once, `[K, B, T]`: "
        f'`asyppo_jax.load_critics("PARENT").values(tokenizer(["a text"]){_anchor(config)})`.',
        _prompt(config),
        f"## Method\n\n{_PAPER}\n\n{_CITATION}",
    ]
    return _join(sections)


def _from_logits(config: Config) -> str:
    """How a value is made of the logits, where it is not the logit itself."""
    value, sentences = config.value, []
    if value.head != "linear":
        head = {"atan": "½ + atan(z) / π", "sigmoid": "1 / (1 + e^−z)"}.get(value.head)
        head = head or f"the mean of {value.bins} values over {value.bin_range} under softmax(z)"
        sentences.append(f" V is {head} of the logit{'s' * (value.head == 'bins')} z.")
    if value.anchor != "none":
        sentences.append(
            f" The logit is relative to an anchor ({value.anchor}, of the mean reward of other "
            "answers to the prompt): the anchor's own logit is added to it first."
        )
    if value.reference_answer:
        sentences.append(
            " The text must begin with the reference answer to the problem, as "
            f"`{json.dumps(value.reference_answer)}`."
        )
    return "".join(sentences)


def _values_from_logits(config: Config) -> list[str]:
    """The lines of Python that make values of `logits`."""
    value = config.value
    lines = {
        "linear": "values = logits[..., 0]",
        "atan": "values = 0.5 + logits[..., 0].atan() / math.pi",
        "sigmoid": "values = logits[..., 0].sigmoid()",
        "bins": "values = logits.softmax(-1) @ torch.linspace("
        f"{', '.join(map(str, (*value.bin_range, value.bins)))})",
    }
    before = []
    if value.head in ("bins", "atan"):
        before.append("import torch" if value.head == "bins" else "import math")
    if value.anchor != "none":
        before.append("# first add the anchor's own logit to logits[..., 0]")
    return [*before, lines[value.head]]


def _anchor(config: Config) -> str:
    anchor = "" if config.value.anchor == "none" else ", anchor=[0.5]"
    reference = ', references=tokenizer(["the reference answer"])["input_ids"]'
    return anchor + (reference if config.value.reference_answer else "")


def _header(config: Config, task: str) -> str:
    lines = ["library_name: transformers", f"pipeline_tag: {task}"]
    if base := _hub_name(config.actor.path):
        lines.append(f"base_model: {base}")
    if config.train_data.source == "hub":
        lines += ["datasets:", f"- {config.train_data.path.partition(':')[0]}"]
    lines += ["tags:", "- reinforcement-learning", "- ppo", "- asyppo", "- jax"]
    return "\n".join(["---", *lines, "---"])


def _critic_models(config: Config) -> str:
    return f"{config.algorithm.num_critics} × {_critic_model(config)}"


def _critic_model(config: Config) -> str:
    path = config.critic.path or config.actor.path
    layers = config.critic.num_layers
    model = _short_name(path)
    if layers is not None:
        model = f"the first {layers} layers of {model}"
    return model


def _hub_name(path: str) -> str | None:
    """The hub name of a model: the path itself, or that of a directory in the hub's cache."""
    if cached := re.search(r"(?:^|/)models--([^/]+?)--([^/]+)/snapshots/", path):
        return f"{cached[1]}/{cached[2]}"
    is_local = path.startswith((".", "/", "~")) or epath.Path(path).exists()
    return None if is_local or path.count("/") != 1 else path


def _short_name(path: str) -> str:
    """The hub name, or the last two components of a local path, which exists on one machine."""
    return _hub_name(path) or "/".join(path.rstrip("/").split("/")[-2:])


def _base_model(path: str) -> str:
    return _short_name(path) if _hub_name(path) else f"{_short_name(path)} (a local directory)"


def _data(data: DataConfig, used: int | None) -> str:
    """The source of a run's problems; `used` is how many of them became prompts, if it is known."""
    is_local = data.source in ("jsonl", "parquet")
    count = "" if data.num_records is None else f", at most {data.num_records:,} problems"
    if used is not None:
        count = f", {used:,} problem{'s' * (used != 1)}"
    name = data.path.rstrip("/").rsplit("/", 1)[-1] if is_local else data.path
    return f"{name} ({data.source}{count})"


def _reward(reward: RewardConfig) -> str:
    if not reward.weights:
        return reward.function
    names = reward.function.split(",")
    return " + ".join(f"{w:g} × {n}" for n, w in zip(names, reward.weights, strict=True))


def _learning_rate(optimizer: OptimizerConfig) -> str:
    text = f"{optimizer.learning_rate:g}"
    if optimizer.warmup_steps:
        text += f", after a warm-up of {optimizer.warmup_steps:,} updates"
    if optimizer.schedule != "constant":
        end = optimizer.final_fraction * optimizer.learning_rate
        text += f", {optimizer.schedule} decay to {end:g} in {optimizer.decay_steps:,} updates"
    return text


def _prompt(config: Config) -> str:
    if config.prompt.template != "chat":
        return f"The prompt template is `{json.dumps(config.prompt.template)[1:-1]}`."
    system = config.prompt.system_prompt
    message = f"with the system prompt `{system}`" if system else "without a system prompt"
    return f"The prompt is the chat template {message}."


# Made of digits, which every tokenizer has.
_PROBLEM = "7+5+8+9"


def _generate_with_transformers(prompt: PromptConfig) -> str:
    """Python code that continues one prompt greedily, as the run makes its prompts."""
    if prompt.template == "chat":
        messages = [{"role": "user", "content": _PROBLEM}]
        if prompt.system_prompt:
            messages.insert(0, {"role": "system", "content": prompt.system_prompt})
        tokens = [
            f"messages = {_literal(messages)}",
            "inputs = tokenizer.apply_chat_template(",
            '    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"',
            ")",
        ]
    else:
        text = _literal(prompt.template.replace("{problem}", _PROBLEM))
        tokens = [f'inputs = tokenizer({text}, add_special_tokens=False, return_tensors="pt")']
    return _code(
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        'model = AutoModelForCausalLM.from_pretrained("DIRECTORY")',
        'tokenizer = AutoTokenizer.from_pretrained("DIRECTORY")',
        *tokens,
        "tokens = model.generate(**inputs, do_sample=False, max_new_tokens=256)",
        "print(tokenizer.decode(tokens[0]))",
    )


def _generate_with_jax() -> str:
    return _code(
        "from asyppo_jax import load_actor",
        "",
        'actor = load_actor("DIRECTORY")  # with the prompt template of its run',
        f"print(actor.generate([{_literal(_PROBLEM)}], temperature=0.0))",
    )


def _literal(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)  # Python reads texts and lists of JSON too


def _code(*lines: str) -> str:
    return "\n".join(["```python", *lines, "```"])


def _metrics_of_step(workdir: str, step: int) -> dict[str, Any]:
    file = absolute(workdir) / METRICS_FILE
    rows = read_metrics(file) if file.is_file() else []
    return next((row for row in rows if row["step"] == step), {})


def _held_out(workdir: str, step: int, config: Config) -> str:
    file = absolute(workdir) / METRICS_FILE
    rows = read_metrics(file) if file.is_file() else []
    results = {
        r["step"]: r["evaluate/accuracy"] for r in rows if r.get("evaluate/accuracy") is not None
    }
    if not results:
        return "The run was not evaluated."
    best = max(results, key=lambda s: results[s])
    steps = sorted({min(results), best, *(s for s in results if s == step)})
    notes = {step: " (these weights)", min(results): " (base model)"}
    lines = [(f"{s}{notes.get(s, '')}", f"{results[s]:.1%}") for s in steps]
    used = read_problem_counts(str(absolute(workdir))).get("held_out")
    e, measure = config.evaluation, config.reward.measure
    sampling = f"answers per problem: {e.num_samples}, temperature {e.temperature:g}"
    return f"Held-out {measure} on {_data(config.eval_data, used)}, {sampling}:\n\n" + _table(
        ("step", measure), lines
    )


def _benchmarks(workdir: str, step: int) -> str:
    files = sorted((absolute(workdir) / "evaluations" / f"step_{step}").glob("*/summary.json"))
    lines = []
    for file in files:
        s = json.loads(file.read_text())
        k, (low, high) = s["num_samples"], s["interval"]
        score = f"{s[f'avg@{k}']:.1%}"
        lines.append(
            (
                s["title"],
                s["num_problems"],
                f"{score} (@{k})",
                f"{low:.1%} – {high:.1%}",
                f"{s[f'pass@{k}']:.1%}",
            )
        )
    head = ("benchmark", "problems", "avg@k", "95% interval", "pass@k")
    return "Benchmarks:\n\n" + _table(head, lines) if lines else ""


def _table(head: Sequence[Any], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(c) for c in line) + " |" for line in lines)


def _join(sections: Sequence[str]) -> str:
    return "\n\n".join(section for section in sections if section) + "\n"
