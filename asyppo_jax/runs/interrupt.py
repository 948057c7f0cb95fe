"""Ctrl-C during a run: the first lets the current step finish, the second stops at once."""

import os
import signal
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from types import FrameType

import jax

# Python handles a signal only after a call of native code returns, and XLA may compile for minutes.
# A program may set what is then called, in another thread, to end the process.
ON_STUCK: ContextVar[Callable[[], None] | None] = ContextVar("ON_STUCK", default=None)
_PATIENCE = 1.0  # seconds until a signal without effect means that native code runs
_DELAY = 0.2  # seconds that the watching thread may read a signal after it was handled


class Interrupt:
    """While entered, SIGINT sets `requested`.

    Outside the work named by `wait_for`, or at the second signal, it also raises
    `KeyboardInterrupt`. Python code that native code calls may swallow the exception (callbacks of
    JAX during a compilation do), so look at `requested` after each piece of work, too: `check`
    raises the exception again. Nothing changes if
    the signal has a handler of the user's, in other threads than the main one, which receive no
    signals, or in a run of several processes, where the others would wait for the one that stops.
    """

    def __init__(self, report: Callable[[str], None]) -> None:
        """`report` prints a sentence, in the signal handler."""
        self.requested = False
        self.wait_for = ""  # such as "step 3"; empty: do not wait
        self._report = report
        self._installed = False
        self._handled_at = 0.0
        self._pipe: int | None = None  # its end that the operating system's handler writes to

    def __enter__(self) -> "Interrupt":
        self._installed = (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
            and jax.process_count() == 1
        )
        if self._installed:
            signal.signal(signal.SIGINT, self._handle)
            if on_stuck := ON_STUCK.get():
                self._start_watching(on_stuck)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if self._pipe is not None:
            signal.set_wakeup_fd(-1)
            os.close(self._pipe)  # ends the thread

    def check(self) -> None:
        """Raises `KeyboardInterrupt` if a signal has arrived."""
        if self.requested:
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._handled_at = time.monotonic()
        # Set first, because a callback of native code may swallow the exception.
        again, self.requested = self.requested, True
        if again or not self.wait_for:
            signal.default_int_handler(number, frame)
        self._report(f"finishing {self.wait_for}, then saving; Ctrl-C again stops at once")

    def _start_watching(self, on_stuck: Callable[[], None]) -> None:
        signals, self._pipe = os.pipe()
        os.set_blocking(self._pipe, False)
        signal.set_wakeup_fd(self._pipe, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(signals, on_stuck), daemon=True).start()

    def _watch(self, signals: int, on_stuck: Callable[[], None]) -> None:
        """Calls `on_stuck` if a signal that should stop the run has no effect."""
        presses = 0
        while number := os.read(signals, 1):
            if number[0] != signal.SIGINT:
                continue
            presses, pressed_at = presses + 1, time.monotonic()
            if presses > 1 or not self.wait_for:
                time.sleep(_PATIENCE)
                if self._handled_at < pressed_at - _DELAY:
                    on_stuck()
        os.close(signals)
