"""A run of two steps, and Ctrl-C in the middle of one."""

import itertools
import signal

import asyppo_jax.train
from asyppo_jax.config import from_config_dict
from configs import tiny_test


def short_run(model: str, **changes):
    values = tiny_test.get_config()
    values.actor.path = model
    values.num_steps = 2
    values.checkpoint.every = 1
    values.evaluation.every = 0
    values.algorithm.critic_warmup_steps = 0
    values.log.tensorboard = False
    for name, value in changes.items():
        section, _, field = name.rpartition("__")
        target = values[section] if section else values
        target[field] = value
    return from_config_dict(values)


def press_while(monkeypatch, name, when, module=asyppo_jax.train, number=signal.SIGINT):
    """A signal while `module` calls its function `name` for the `when`-th time."""
    function, calls = getattr(module, name), itertools.count(1)

    def pressing(*arguments, **options):
        if next(calls) == when:
            signal.raise_signal(number)
        return function(*arguments, **options)

    monkeypatch.setattr(module, name, pressing)
