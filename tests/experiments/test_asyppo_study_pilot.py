import json

import pytest
from absl import flags

from asyppo_jax.config import ConfigError, from_config_dict
from asyppo_jax.models.actor_critic import Actor, Networks
from asyppo_jax.models.formats.huggingface import load_config, load_params
from configs import asyppo_study
from experiments.asyppo_study import __main__ as command
from experiments.asyppo_study import tasks
from experiments.asyppo_study.make_models import MODELS, accuracy
from experiments.asyppo_study.pilot import Curve, RunName, read_curve, report
from experiments.asyppo_study.settings import ACTORS, METHODS, PILOT_METHODS, TASKS
from experiments.quickstart.make_model import MODEL as QUICKSTART_MODEL


def parsed(*arguments):
    flags.FLAGS.unparse_flags()
    flags.FLAGS(["pilot", *arguments])


@pytest.fixture(autouse=True)
def fresh_flags():
    yield
    for name in ("workdir", "tasks", "actors", "methods", "seeds", "steps", "set"):
        flags.FLAGS[name].unparse()
    flags.FLAGS.unparse_flags()


def test_a_run_for_every_combination_with_the_settings_of_its_names():
    parsed("--seeds=100,101", "--steps=7", "--set=actor_optimizer.learning_rate=0.5")
    configs = command.run_configs()
    assert len(configs) == len(TASKS) * len(ACTORS) * len(PILOT_METHODS) * 2
    config = configs["chains", "llama", "grpo", 101]
    assert (
        config.train_data.path == config.eval_data.path == "experiments.asyppo_study.tasks:chains"
    )
    assert config.actor.path.endswith("llama")
    assert (config.algorithm.num_critics, config.seed, config.num_steps) == (0, 101, 7)
    assert config.actor_optimizer.learning_rate == 0.5


def test_every_method_is_a_valid_config_and_no_two_are_the_same():
    parsed(f"--methods={','.join(METHODS)}", "--tasks=sums", "--actors=qwen3", "--seeds=0")
    configs = list(command.run_configs().values())
    assert len(configs) == len(METHODS)
    assert len(set(map(repr, configs))) == len(METHODS)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--tasks=sum", "--tasks has 'sum'; choose from sums, chains"),
        ("--methods=ppo", "--methods has 'ppo'; choose from"),
        ("--seeds=a", "--seeds has 'a'; give numbers"),
        ("--set=num_steps=many", "--set=num_steps=many has no number after '='"),
        ("--set=steps=1", "steps"),
    ],
)
def test_wrong_names_are_reported_in_one_sentence(flag, message):
    parsed(flag)
    with pytest.raises(ConfigError, match=message):
        command.run_configs()


def test_the_base_config_fits_the_tasks():
    config = from_config_dict(asyppo_study.get_config())
    assert config.prompt.max_length == tasks.MAX_PROMPT_LENGTH
    assert config.sampling.max_completion_length == tasks.MAX_COMPLETION_LENGTH
    for model in MODELS.values():
        assert config.critic.num_layers is not None
        assert 3 * config.critic.num_layers <= model.num_layers


def test_a_curve_is_read_from_the_metrics(tmp_path):
    rows = [
        {"step": 0, "evaluate/accuracy": 0.25, "time/elapsed_s": 9.0},
        {"step": 1, "time/elapsed_s": 20.0},
        {"step": 2, "time/elapsed_s": 21.0},
        {"step": 3, "time/elapsed_s": 22.5},
        {"step": 4, "evaluate/accuracy": 0.5, "time/elapsed_s": 24.0},
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    assert read_curve(tmp_path) == Curve([0, 4], [0.25, 0.5], 1.5)


def test_the_final_accuracy_is_the_mean_of_the_last_evaluations():
    curve = Curve(list(range(0, 70, 10)), [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], 1.0)
    assert curve.final == pytest.approx(0.5)


def test_the_report_has_the_means_the_spread_and_the_power_of_paired_seeds():
    curves = {}
    for method, finals in (("grpo", (0.5, 0.6, 0.7)), ("asyppo", (0.55, 0.61, 0.72))):
        for seed, final in enumerate(finals):
            name = RunName("sums", "qwen3", method, seed)
            curves[name] = Curve([0, 10, 20, 30, 40, 50], [0.3, *[final] * 5], 0.5)
    text = report(curves)
    assert "| sums | qwen3 | grpo | 3 | 0: 0.300, 10: 0.600" in text
    assert "| 0.600 | 0.100 | 0.50 |" in text
    # Differences 0.05, 0.01 and 0.02 have a std of 0.0208.
    assert "a std of 0.021 over seeds" in text
    assert "a difference of 0.03 is seen with a probability of 0.98" in text


def test_one_seed_gives_a_table_without_a_spread():
    text = report({RunName("sums", "qwen3", "grpo", 0): Curve([0, 10], [0.3, 0.5], 0.5)})
    assert "| 0.400 |  | 0.50 |" in text and "probability" not in text


@pytest.mark.parametrize("name", MODELS)
def test_the_actors_are_of_two_families_with_about_a_million_parameters(name):
    model = MODELS[name]
    assert model.model_type == name
    assert 1.0e6 <= model.num_params <= 1.3e6
    assert model.vocab_size == QUICKSTART_MODEL.vocab_size  # they share the tokenizer


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.usefixtures("one_sampler")
def test_a_shipped_actor_is_right_in_a_fifth_to_half_of_its_answers(name):
    directory = ACTORS[name]["actor.path"]
    config = load_config(directory)
    assert config == MODELS[name]
    networks = Networks(Actor(config), None)
    params = load_params(directory, config, "actor")
    for task in tasks.TASKS:
        assert 0.2 < accuracy(task, params, networks, temperature=1.0, num_problems=400) < 0.5
