"""The first Ctrl-C waits for the work that is named, the second does not."""

import contextlib
import gc
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import pytest

from asyppo_jax.runs import interrupt as interrupts
from asyppo_jax.runs.interrupt import ENDING, ON_STUCK, Interrupt, Stopped
from tests.simulated import environment

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _hangups_are_not_ignored():
    """As they are where the suite runs under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


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
    with Interrupt(print), pytest.raises(KeyboardInterrupt):
        _press()


def test_a_signal_whose_exception_is_swallowed_ends_the_run_at_the_next_check():
    lines = []
    with Interrupt(lines.append) as interrupt:
        interrupt.check()
        with contextlib.suppress(KeyboardInterrupt):  # as a callback of JAX does
            _press()
        assert interrupt.requested
        with pytest.raises(KeyboardInterrupt):
            interrupt.check()
        interrupt.wait_for = "step 3"
        with pytest.raises(KeyboardInterrupt):  # this is the second signal
            _press()
    assert lines == []


def _collect_garbage_with(callback):
    """Python reports an exception of such a callback, as JAX has one, and does not raise it."""
    gc.callbacks.append(callback)
    try:
        gc.collect()
    finally:
        gc.callbacks.remove(callback)


@pytest.mark.parametrize("number", [signal.SIGINT, *ENDING])
def test_python_does_not_report_a_signal_whose_exception_is_swallowed(number, monkeypatch):
    reports = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: reports.append(args.exc_type))
    hook = sys.unraisablehook

    def send(phase, info):
        if not interrupt.requested:
            signal.raise_signal(number)

    def fail(phase, info):
        raise ZeroDivisionError

    with Interrupt(print) as interrupt:
        interrupt.rescue = lambda: None
        _collect_garbage_with(send)
        assert interrupt.requested and not reports
        with pytest.raises(KeyboardInterrupt):
            interrupt.check()
        _collect_garbage_with(fail)
        assert set(reports) == {ZeroDivisionError}
    assert sys.unraisablehook is hook


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


IN_NATIVE_CODE = """
import hashlib, os, signal
from asyppo_jax.runs.interrupt import ON_STUCK, Interrupt

signal.signal(signal.SIGINT, signal.default_int_handler)
ON_STUCK.set(lambda number: os._exit(7))
with Interrupt(print) as interrupt:
    interrupt.wait_for = {wait_for!r}
    print("started", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # minutes in one call, which Python cannot end
"""


@pytest.mark.parametrize("wait_for", ["", "step 3"])
def test_native_code_that_does_not_return_is_left_by_the_command(wait_for):
    """One press is enough if nothing is waited for, else two; more do no harm."""
    program = [sys.executable, "-c", IN_NATIVE_CODE.format(wait_for=wait_for)]
    with subprocess.Popen(
        program, cwd=ROOT, env=environment(1), stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "started\n"
            time.sleep(1)  # until it is in the native call
            deadline = time.monotonic() + 60
            while process.poll() is None and time.monotonic() < deadline:
                process.send_signal(signal.SIGINT)  # on a busy machine two may arrive as one
                time.sleep(0.5 if wait_for else 5)
            assert process.poll() == 7
        finally:
            process.kill()


def test_a_signal_that_python_handles_ends_no_process():
    stuck = []
    token = ON_STUCK.set(stuck.append)
    try:
        with Interrupt(print), pytest.raises(KeyboardInterrupt):
            _press()
        time.sleep(1.2)
    finally:
        ON_STUCK.reset(token)
    assert not stuck and signal.set_wakeup_fd(-1) == -1


def test_another_thread_changes_no_handler():
    handlers = []

    def train():
        with Interrupt(print):
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert handlers == [signal.default_int_handler]


@pytest.mark.parametrize("number", ENDING)
def test_sigterm_drops_work_that_can_be_dropped_and_saves_what_it_began_with(number):
    saved = []
    with Interrupt(print, lambda: saved.append("written")) as interrupt:
        interrupt.wait_for = "step 3"
        interrupt.rescue = lambda: saved.append("before")
        with pytest.raises(Stopped) as stopped:
            signal.raise_signal(number)
        signal.raise_signal(number)  # a second one does not stop the saving
        interrupt.leave()
        interrupt.leave()
    assert stopped.value.number == number and saved == ["before", "written", "written"]
    assert signal.getsignal(number) is signal.SIG_DFL


def test_sigterm_waits_for_work_that_cannot_be_dropped():
    with Interrupt(print) as interrupt:
        interrupt.rescue = pytest.fail
        interrupt.commit()
        signal.raise_signal(signal.SIGTERM)
        assert interrupt.requested and interrupt.rescue is None
        with pytest.raises(Stopped):
            interrupt.check()


def test_an_ignored_sighup_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with Interrupt(print) as interrupt:
            signal.raise_signal(signal.SIGHUP)
            assert not interrupt.requested
    finally:
        signal.signal(signal.SIGHUP, before)


def test_one_of_several_processes_ends_where_all_agree(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    told = [0, 1]
    monkeypatch.setattr(interrupts, "sum_over_hosts", lambda ours: int(ours) + told.pop(0))
    with Interrupt(print) as interrupt:
        interrupt.rescue = print
        interrupt.check_ending()  # nobody was told to end
        with pytest.raises(Stopped):
            interrupt.check_ending()  # the other one was


def test_a_process_that_was_told_alone_goes_on_until_all_agree(monkeypatch):
    """Else it would save and end while the others wait for it in the next step."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(interrupts, "sum_over_hosts", int)
    with Interrupt(print) as interrupt:
        interrupt.agree()
        signal.raise_signal(signal.SIGHUP)
        interrupt.check()
        assert not interrupt.requested
        interrupt.agree()
        assert interrupt.requested
        with pytest.raises(Stopped) as stopped:
            interrupt.check()
    assert stopped.value.number == signal.SIGHUP


@pytest.mark.parametrize("can_be_saved", [True, False])
def test_a_thread_saves_and_ends_the_run_if_native_code_does_not_return(monkeypatch, can_be_saved):
    monkeypatch.setattr(interrupts, "GRACE", 0.05)
    done, ended = [], threading.Event()

    def on_stuck(number):
        done.append(number)
        ended.set()

    token = ON_STUCK.set(on_stuck)
    try:
        with Interrupt(print, lambda: done.append("written")) as interrupt:
            if can_be_saved:
                interrupt.rescue = lambda: done.append("before")
            signal.signal(signal.SIGTERM, lambda *_: None)  # Python's handler does not get to run
            signal.raise_signal(signal.SIGTERM)
            assert ended.wait(30)
    finally:
        ON_STUCK.reset(token)
    assert done == ["before"] * can_be_saved + ["written", signal.SIGTERM]
