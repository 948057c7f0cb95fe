"""A run of two steps, and Ctrl-C in the middle of one."""

import itertools
import signal
from types import ModuleType

from asyppo_jax.config import from_config_dict
from asyppo_jax.loop import Loop
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


def press_while(monkeypatch, name, when, where: type | ModuleType = Loop, number=signal.SIGINT):
    """A signal at the `when`-th call of the function `name` in a module, or of a class."""
    function, calls = getattr(where, name), itertools.count(1)

    def pressing(*arguments, **options):
        if next(calls) == when:
            signal.raise_signal(number)
        return function(*arguments, **options)

    monkeypatch.setattr(where, name, pressing)
