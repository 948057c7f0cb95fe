"""Signals during a run: Ctrl-C, and SIGTERM and SIGHUP, which end a process that is preempted.

The first Ctrl-C lets the current step finish, the second stops at once. SIGTERM and SIGHUP leave
little time: a step is dropped while the state before it still exists, else it finishes.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from types import FrameType

import jax
import numpy as np

from asyppo_jax.runtime.multi_host import sum_over_hosts

# Python handles a signal only after a call of native code returns, and XLA may compile for minutes.
# A program may set what is then called with the signal's number, in another thread, to end the
# process.
ON_STUCK: ContextVar[Callable[[int], None] | None] = ContextVar("ON_STUCK", default=None)
ENDING = (signal.SIGTERM, signal.SIGHUP)
GRACE = 10.0  # seconds after SIGTERM in which the step may end; preemption often leaves 30
_PATIENCE = 1.0  # seconds until a signal without effect means that native code runs
_DELAY = 0.2  # seconds that the watching thread may read a signal after it was handled


class Stopped(KeyboardInterrupt):
    """A run that a signal stopped; `number` is the signal. The message says what is kept."""

    def __init__(self, text: str = "", number: int = signal.SIGINT) -> None:
        super().__init__(text)
        self.number = number


class Interrupt:
    """While entered, SIGINT, SIGTERM and SIGHUP set `requested`.

    Outside the work named by `wait_for`, or at the second signal, SIGINT also raises
    `KeyboardInterrupt`. SIGTERM and SIGHUP raise `Stopped` while there is a `rescue`, which saves
    what the current work began with. Python code that native code calls may swallow the exception
    (callbacks of JAX during a compilation and of the garbage collector do; Python's report of it is
    not printed), so look at `requested` after each piece of work, too: `check` raises the exception
    again. Nothing changes if the signal has a handler of the
    user's or is ignored, and in other threads than the main one, which receive no signals. In a run
    of several processes SIGINT is left alone, because the others would wait for the one that stops,
    and SIGTERM and SIGHUP act where the processes `agree`.
    """

    def __init__(
        self, report: Callable[[str], None], finish_writing: Callable[[], None] | None = None
    ) -> None:
        """`report` prints a sentence, in the signal handler.

        `finish_writing` returns when all that was saved is on disk.
        """
        self.requested = False
        self.wait_for = ""  # such as "step 3"; empty: do not wait
        self.rescue: Callable[[], None] | None = None
        self._report = report
        self._finish_writing = finish_writing
        self._ending = 0  # SIGTERM or SIGHUP, if the run stops because of one
        self._received = 0  # that of this process, on which several processes have yet to agree
        self._leaving = False  # the main thread saves and ends the run
        self._lock = threading.Lock()  # held by the thread that saves
        self._before: dict[int, signal.Handlers] = {}
        self._handled_at = 0.0
        self._report_unraisable = sys.unraisablehook
        self._pipe: int | None = None  # its end that the operating system's handler writes to

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is threading.main_thread():
            if jax.process_count() == 1:
                self._install(signal.SIGINT, signal.default_int_handler, self._handle)
            for number in ENDING:
                self._install(number, signal.SIG_DFL, self._handle_end)
            self._report_unraisable, sys.unraisablehook = sys.unraisablehook, self._hide_unraisable
        if self._before and jax.process_count() == 1 and (on_stuck := ON_STUCK.get()):
            self._start_watching(on_stuck)
        return self

    def _install(self, number: int, expected: object, handler: Callable[..., None]) -> None:
        if signal.getsignal(number) == expected:
            self._before[number] = signal.signal(number, handler)  # pyright: ignore[reportArgumentType]

    def _hide_unraisable(self, unraisable: "sys.UnraisableHookArgs") -> None:
        """Python calls this with an exception that it cannot raise, as in a callback of its own."""
        if not (self.requested and isinstance(unraisable.exc_value, KeyboardInterrupt)):
            self._report_unraisable(unraisable)

    def __exit__(self, *exception: object) -> None:
        self._leaving = True
        if sys.unraisablehook == self._hide_unraisable:
            sys.unraisablehook = self._report_unraisable
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._pipe is not None:
            signal.set_wakeup_fd(-1)
            os.close(self._pipe)  # ends the thread

    def check(self) -> None:
        """Raises `KeyboardInterrupt` or `Stopped` if a signal has arrived."""
        if self._ending:
            raise Stopped(number=self._ending)
        if self.requested:
            raise KeyboardInterrupt

    def agree(self) -> None:
        """If one of several processes got SIGTERM or SIGHUP, all stop; all must call this."""
        if jax.process_count() > 1 and int(sum_over_hosts(np.int32(self._received > 0))):
            self.requested, self._ending = True, self._received or signal.SIGTERM

    def check_ending(self) -> None:
        """Raises `Stopped` if a process of the run got SIGTERM or SIGHUP; all must call this."""
        self.agree()
        if self._ending:
            self.check()

    def commit(self) -> None:
        """The current work can no longer be dropped; raises `Stopped` if it was to be dropped."""
        self.check_ending()
        with self._lock:  # a thread that saves does not give it back
            self.rescue = None

    def leave(self) -> None:
        """The main thread ends the run: it saves by `rescue`, if there is one."""
        with self._lock:
            self._leaving = True
            rescue, self.rescue = self.rescue, None
        if rescue is not None:
            rescue()
        if self._finish_writing is not None:
            self._finish_writing()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._handled_at = time.monotonic()
        # Set first, because a callback of native code may swallow the exception.
        again, self.requested = self.requested, True
        if again or not self.wait_for:
            signal.default_int_handler(number, frame)
        self._report(f"finishing {self.wait_for}, then saving; Ctrl-C again stops at once")

    def _handle_end(self, number: int, frame: FrameType | None) -> None:
        if jax.process_count() > 1:  # or one would save and end while the others go on
            self._received = number
            return
        first, self._ending, self.requested = not self._ending, number, True
        # Only once: another one must not stop what the first one made the run save.
        if first and self.rescue is not None:
            raise Stopped(number=number)

    def _start_watching(self, on_stuck: Callable[[int], None]) -> None:
        signals, self._pipe = os.pipe()
        os.set_blocking(self._pipe, False)
        signal.set_wakeup_fd(self._pipe, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(signals, on_stuck), daemon=True).start()

    def _watch(self, signals: int, on_stuck: Callable[[int], None]) -> None:
        """Calls `on_stuck` if a signal that should stop the run has no effect."""
        presses, timer = 0, None
        while read := os.read(signals, 1):
            number = read[0]
            if number in ENDING and number in self._before and timer is None:
                timer = threading.Timer(GRACE, self._end, (number, on_stuck))
                timer.daemon = True
                timer.start()
            if number != signal.SIGINT or number not in self._before:
                continue
            presses, pressed_at = presses + 1, time.monotonic()
            if presses > 1 or not self.wait_for:
                time.sleep(_PATIENCE)
                if self._handled_at < pressed_at - _DELAY:
                    on_stuck(number)
        os.close(signals)

    def _end(self, number: int, on_stuck: Callable[[int], None]) -> None:
        """Saves what can be saved, and ends the process, if the main thread has not begun to."""
        with self._lock:
            if self._leaving:
                return
            try:
                if self.rescue is not None:
                    self.rescue()
                if self._finish_writing is not None:
                    self._finish_writing()
            finally:
                on_stuck(number)
