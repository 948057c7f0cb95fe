"""What Orbax logs and raises is shown once; other logs of the same loggers are shown."""

import logging

import pytest

from asyppo_jax.runs.orbax_logs import hide_raised_exceptions, without_metric_warning

WRITE = ValueError('Error writing "x/0" in OCDBT database at local file "y"')


def is_shown(name, path="somewhere.py", text="text", error=None):
    info = (type(error), error, None) if error else None
    record = logging.LogRecord(name, logging.ERROR, path, 1, text, (), info)
    return bool(logging.getLogger(name).filter(record))


@pytest.fixture
def hidden():
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    before = [list(logger.filters) for logger in loggers]
    hide_raised_exceptions()
    hide_raised_exceptions()
    yield
    for logger, filters in zip(loggers, before, strict=True):
        logger.filters = filters


def test_exceptions_of_orbax_and_of_arrays_are_hidden_and_others_are_not(hidden):
    orbax = "site-packages/orbax/checkpoint/future.py"
    assert not is_shown("absl", orbax, error=ValueError("any"))
    assert not is_shown("asyncio", "base_events.py", error=WRITE)
    assert is_shown("absl", orbax)
    assert is_shown("absl", error=ValueError("any"))
    assert is_shown("asyncio", "base_events.py", error=ValueError("any"))
    assert is_shown("other", error=WRITE)


def test_only_the_warning_about_metrics_is_hidden_and_only_inside():
    text = "user did not provide metrics for step 3"
    with without_metric_warning():
        assert not is_shown("absl", text=text) and is_shown("absl", text="disk is slow")
    assert is_shown("absl", text=text)
