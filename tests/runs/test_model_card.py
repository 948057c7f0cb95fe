"""Model cards: filled from the files of the run, without sections for what is missing."""

import dataclasses
import json
import re

import pytest

from asyppo_jax.config import DataConfig, NetworkConfig, PromptConfig
from asyppo_jax.runs.metrics import write_problem_counts
from asyppo_jax.runs.model_card import actor_card, critic_card
from tests.tiny import make_config


@pytest.fixture
def run(tmp_path):
    rows = [
        {"step": 0, "evaluate/accuracy": 0.25},
        {"step": 1, "critic/explained_variance_1": 0.125},
        {"step": 2, "evaluate/accuracy": 0.75, "critic/explained_variance_1": 0.5},
        {"step": 4, "evaluate/accuracy": 0.5},
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    config = make_config(critic__num_layers=4, seed=3, num_steps=4)
    config = dataclasses.replace(
        config,
        actor=NetworkConfig(path="Qwen/Qwen3-4B-Base"),
        train_data=DataConfig(source="hub", path="zwhe99/DeepMath-103K:main"),
        eval_data=DataConfig(source="jsonl", path="/somewhere/of/mine/math500.jsonl"),
    )
    return str(tmp_path), config


def test_the_card_of_an_actor_describes_the_run(run):
    workdir, config = run
    text = actor_card("mine", workdir, 4, config)
    for line in (
        "base_model: Qwen/Qwen3-4B-Base",
        "- zwhe99/DeepMath-103K\n",
        "pipeline_tag: text-generation",
        "AsyPPO (2 critics, masks 20% and 20%)",
        "2 × the first 4 layers of Qwen/Qwen3-4B-Base",
        "| seed | 3 |",
        "| steps | 4 of 4 |",
        "| 0 (base model) | 25.0% |\n| 2 | 75.0% |\n| 4 (these weights) | 50.0% |",
        "math500.jsonl (jsonl)",
        "arXiv 2510.01656",
    ):
        assert line in text
    assert "| base model | Qwen/Qwen3-4B-Base |" in text
    assert "/somewhere" not in text and "plots.png" not in text and "Benchmarks" not in text
    assert f"Held-out {config.reward.measure} on" in text


def test_the_card_has_the_number_of_problems_that_were_used(run):
    workdir, config = run
    config = dataclasses.replace(
        config,
        train_data=dataclasses.replace(config.train_data, num_records=4096),
        eval_data=dataclasses.replace(config.eval_data, num_records=256),
    )
    text = actor_card("mine", workdir, 4, config)
    assert "(hub, at most 4,096 problems)" in text and "(jsonl, at most 256 problems)" in text
    write_problem_counts(workdir, 50, 1)
    text = actor_card("mine", workdir, 4, config)
    assert "(hub, 50 problems)" in text and "(jsonl, 1 problem)" in text
    assert "4,096" not in text and "256 problems" not in text


def test_the_card_has_the_weights_of_rewards_and_the_schedule(run):
    workdir, config = run
    optimizer = dataclasses.replace(
        config.actor_optimizer,
        learning_rate=1e-3,
        warmup_steps=5,
        schedule="cosine",
        decay_steps=1200,
        final_fraction=0.1,
    )
    reward = dataclasses.replace(config.reward, function="math,a:f", weights=(0.7, 0.3))
    config = dataclasses.replace(config, actor_optimizer=optimizer, reward=reward)
    text = actor_card("mine", workdir, 4, config)
    assert "| reward | 0.7 × math + 0.3 × a:f |" in text
    assert (
        "| 0.001, after a warm-up of 5 updates, cosine decay to 0.0001 in 1,200 updates |" in text
    )


def test_results_of_a_reward_of_ones_own_are_a_mean_reward_in_the_card(run):
    workdir, config = run
    reward = dataclasses.replace(config.reward, function="mine:reward")
    text = actor_card("mine", workdir, 4, dataclasses.replace(config, reward=reward))
    assert "Held-out mean reward on" in text and "| step | mean reward |" in text
    assert "accuracy" not in text


@pytest.mark.parametrize(
    ("path", "name", "hub_name"),
    [
        ("Qwen/Qwen3-4B-Base", "Qwen/Qwen3-4B-Base", "Qwen/Qwen3-4B-Base"),
        ("/some/hub/models--Qwen--Qwen3-4B-Base/snapshots/1a2b", *["Qwen/Qwen3-4B-Base"] * 2),
        ("experiments/quickstart/model", "quickstart/model (a local directory)", None),
        ("/some/disk/models/mine/", "models/mine (a local directory)", None),
        ("tests/runs", "tests/runs (a local directory)", None),  # exists, so it is no hub name
    ],
)
def test_the_base_model_is_its_hub_name_or_the_end_of_its_path(run, path, name, hub_name):
    workdir, config = run
    text = actor_card("mine", workdir, 4, dataclasses.replace(config, actor=NetworkConfig(path)))
    assert f"| base model | {name} |" in text
    assert ("base_model:" in text) == (hub_name is not None)
    assert hub_name is None or f"base_model: {hub_name}\n" in text
    assert "/some" not in text


@pytest.mark.parametrize("template", ["chat", 'Solve "{problem}"\n'])
def test_the_code_of_the_card_compiles_and_has_the_prompt_of_the_run(run, template):
    workdir, config = run
    prompt = PromptConfig(template=template, system_prompt='Say "x".')
    text = actor_card("mine", workdir, 4, dataclasses.replace(config, prompt=prompt))
    theirs, ours = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    for code in (theirs, ours):
        compile(code, "card", "exec")
    assert (r"Say \"x\"." in theirs) == (template == "chat")
    filled = r'tokenizer("Solve \"7+5+8+9\"\n", add_special_tokens=False'
    assert ("apply_chat_template" if template == "chat" else filled) in theirs


def test_scores_and_the_plot_are_taken_from_the_run(run, tmp_path):
    workdir, config = run
    (tmp_path / "plots.png").write_bytes(b"")
    directory = tmp_path / "evaluations" / "step_4" / "amc23"
    directory.mkdir(parents=True)
    scores = {"avg@4": 0.5, "pass@4": 0.75, "interval": [0.4, 0.625]}
    summary = {"title": "AMC 2023", "num_problems": 40, "num_samples": 4} | scores
    (directory / "summary.json").write_text(json.dumps(summary))
    text = actor_card("mine", workdir, 4, config)
    assert "| AMC 2023 | 40 | 50.0% (@4) | 40.0% – 62.5% | 75.0% |" in text
    assert "![curves of the run](plots.png)" in text
    assert "AMC 2023" not in actor_card("mine", workdir, 2, config)


def test_the_card_of_a_critic_has_its_index_and_explained_variance(run):
    workdir, config = run
    text = critic_card("mine-critic-1", workdir, 2, config, 1)
    assert "Critic 1 of the 2 of a run of AsyPPO" in text
    assert "explained variance at that step was 0.500" in text
    assert "AutoModelForTokenClassification" in text
    assert "explained variance" not in critic_card("c", workdir, 2, config, 0)


def test_a_run_without_critics_or_without_evaluation_has_a_card_too(tmp_path):
    text = actor_card("mine", str(tmp_path), 1, make_config(0))
    assert "GRPO (no critics)" in text and "| critics | none |" in text
    assert "The run was not evaluated." in text
