"""The first Ctrl-C waits for the work that is named, the second does not."""

import signal
import threading

import jax
import pytest

from asyppo_jax.runs.interrupt import Interrupt


def _press():
    signal.raise_signal(signal.SIGINT)


def test_the_first_waits_and_says_so_and_the_second_stops():
    lines = []
    with Interrupt(lines.append) as interrupt:
        interrupt.wait_for = "step 3"
        _press()
        assert interrupt.requested
        assert lines == ["finishing step 3, then saving; Ctrl-C again stops at once"]
        with pytest.raises(KeyboardInterrupt):
            _press()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler and len(lines) == 1


def test_where_nothing_is_named_the_first_stops():
    with Interrupt(print) as interrupt, pytest.raises(KeyboardInterrupt):
        _press()
    assert not interrupt.requested


def test_a_handler_of_the_users_own_stays(monkeypatch):
    pressed = []
    before = signal.signal(signal.SIGINT, lambda *_: pressed.append(True))
    try:
        with Interrupt(print) as interrupt:
            interrupt.wait_for = "step 3"
            _press()
        assert pressed and not interrupt.requested
    finally:
        signal.signal(signal.SIGINT, before)


def test_one_of_several_processes_stops_at_once(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with Interrupt(print) as interrupt, pytest.raises(KeyboardInterrupt):
        interrupt.wait_for = "step 3"
        _press()


def test_another_thread_changes_no_handler():
    handlers = []

    def train():
        with Interrupt(print):
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert handlers == [signal.default_int_handler]
