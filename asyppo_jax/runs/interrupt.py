"""Ctrl-C during a run: the first lets the current step finish, the second stops at once."""

import signal
import threading
from collections.abc import Callable
from types import FrameType

import jax


class Interrupt:
    """While entered, SIGINT during the work named by `wait_for` sets `requested`.

    Otherwise, or at the second signal, it raises `KeyboardInterrupt` as usual. Nothing changes if
    the signal has a handler of the user's, in other threads than the main one, which receive no
    signals, or in a run of several processes, where the others would wait for the one that stops.
    """

    def __init__(self, report: Callable[[str], None]) -> None:
        """`report` prints a sentence, in the signal handler."""
        self.requested = False
        self.wait_for = ""  # such as "step 3"; empty: do not wait
        self._report = report
        self._installed = False

    def __enter__(self) -> "Interrupt":
        self._installed = (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
            and jax.process_count() == 1
        )
        if self._installed:
            signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested or not self.wait_for:
            signal.default_int_handler(number, frame)
        self.requested = True
        self._report(f"finishing {self.wait_for}, then saving; Ctrl-C again stops at once")
