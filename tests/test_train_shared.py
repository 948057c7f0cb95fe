"""Runs that share a process: equal to the bit to runs of their own, with one set of programs."""

import dataclasses

import jax
import pytest

from asyppo_jax.algorithm import offload, state
from asyppo_jax.algorithm.advantages import ESTIMATORS, grpo_advantages
from asyppo_jax.algorithm.offload import make_train_step
from asyppo_jax.algorithm.state import programs_config
from asyppo_jax.config import Config, ConfigError, RewardConfig, from_config_dict
from asyppo_jax.runs import setup
from asyppo_jax.runs.metrics import read_metrics
from asyppo_jax.runtime.sharding import make_mesh
from asyppo_jax.sampling import sampler
from asyppo_jax.tasks.rewards import RewardPool
from asyppo_jax.train import train
from configs import tiny_test
from tests.tiny import make_config, make_networks, save_model_directory


def _forget_programs():
    """As in a new process."""
    for cached in (
        offload._shared_step,
        offload._field_programs,
        state._state_shapes,
        setup._compiled_init_heads,
        sampler._compiled,
    ):
        cached.cache_clear()
    jax.clear_caches()


def _config(model: str, seed: int, num_steps: int) -> Config:
    values = tiny_test.get_config()
    values.actor.path = model
    values.seed, values.num_steps = seed, num_steps
    values.value.head_init = "rollout"
    values.checkpoint.every = seed  # 0, or after each step
    values.evaluation.every = 0
    values.algorithm.critic_warmup_steps = 0
    values.log.tensorboard = False
    return from_config_dict(values)


def _numbers(workdir):
    timed = ("time/", "rollout/tokens_per_s")
    rows = read_metrics(workdir / "metrics.jsonl")
    return [{k: v for k, v in row.items() if not k.startswith(timed)} for row in rows]


@pytest.mark.slow
@pytest.mark.usefixtures("one_sampler")
def test_a_run_after_another_one_gives_the_numbers_of_a_run_of_its_own(tmp_path):
    model = save_model_directory(tmp_path / "model")
    config = _config(model, seed=1, num_steps=2)
    _forget_programs()
    train(config, tmp_path / "alone")
    _forget_programs()
    with RewardPool(config.reward) as pool:
        train(_config(model, seed=0, num_steps=1), tmp_path / "first", pool=pool)
        traced = [offload._shared_step.cache_info().misses, sampler._compiled.cache_info().misses]
        train(config, tmp_path / "second", pool=pool)
        again = [offload._shared_step.cache_info().misses, sampler._compiled.cache_info().misses]
        pool.score([], [], [])  # it is still open
    assert traced == again == [1, 2]  # a sampler for training, one for evaluations
    assert _numbers(tmp_path / "alone") == _numbers(tmp_path / "second")
    assert _numbers(tmp_path / "first")[1] != _numbers(tmp_path / "second")[1]


def test_programs_are_shared_by_seeds_and_logs_and_by_nothing_that_they_read():
    networks, config = make_networks(), make_config()
    mesh = make_mesh(config.mesh)
    step = make_train_step(networks, config, mesh)
    log = dataclasses.replace(config.log, samples_every=3)
    same = dataclasses.replace(config, seed=7, num_steps=3, log=log)
    assert make_train_step(networks, same, mesh) is step
    for section, field, value in (
        ("algorithm", "clip_eps_low", 0.1),
        ("actor_optimizer", "learning_rate", 0.5),
        ("batching", "logits_chunk", 9),
        ("value", "clip_eps", 0.3),
        ("sampling", "group_size", 4),
    ):
        part = dataclasses.replace(getattr(config, section), **{field: value})
        other = dataclasses.replace(config, **{section: part})
        assert make_train_step(networks, other, mesh) is not step
        assert programs_config(other) != programs_config(config)


def test_a_pool_of_another_reward_is_refused(tmp_path):
    config = _config(save_model_directory(tmp_path / "model"), seed=0, num_steps=1)
    message = r"pool scores with 'exact' and its settings, the run with 'exact'; give RewardPool"
    other = RewardConfig(function="exact", time_limit=9.0)
    with RewardPool(other) as pool, pytest.raises(ConfigError, match=message):
        train(config, tmp_path / "run", pool=pool)
    assert not (tmp_path / "run").exists()


@dataclasses.dataclass
class Scaled:
    """A loss whose factor may change between runs, and which has no hash."""

    factor: float = 1.0

    def __call__(self, log_probs, entropy, rows, config):
        return -self.factor * rows.advantages * log_probs


def test_a_loss_of_ones_own_and_a_replaced_estimator_get_a_new_step(monkeypatch):
    networks, config = make_networks(), make_config()
    mesh, loss = make_mesh(config.mesh), Scaled()
    assert make_train_step(networks, config, mesh, loss) is not make_train_step(
        networks, config, mesh, loss
    )
    step = make_train_step(networks, config, mesh)
    monkeypatch.setitem(ESTIMATORS, config.algorithm.advantages, grpo_advantages)
    assert make_train_step(networks, config, mesh) is not step


def _always(problem, completion, answer):
    return 1.0


def test_a_pool_of_given_functions_is_known_by_their_names(tmp_path):
    config = _config(save_model_directory(tmp_path / "model"), seed=0, num_steps=1)
    with RewardPool(config.reward, _always) as pool:
        with pytest.raises(ConfigError, match=r"pool scores with '.*_always' .* with 'exact'"):
            train(config, tmp_path / "run", pool=pool)
        summary = train(config, tmp_path / "run", pool=pool, reward=_always)
    assert summary["accuracy_after"] == 1.0
