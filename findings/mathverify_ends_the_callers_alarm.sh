#!/usr/bin/env bash
# math-verify 0.9.0, latex2sympy2_extended 1.11.0, sympy 1.14.0 (Python 3.11), Linux.
#
# Expected: parse and verify leave the caller's timers alone.
# Seen: with their time limits on (the default) they use the process's one alarm and set it to 0 at the end. An
#   alarm or a real-time timer that the caller had set is gone after the first call, though its handler is put
#   back. With parsing_timeout=None and timeout_seconds=None it stays.
# Who meets it: a watchdog (signal.alarm, pytest-timeout's signal method) around a
#   loop that grades answers: after the first answer it never fires, and a hanging grader hangs for good.
#
# Exit status: 0 the behaviour is still there, 1 it changed, 2 the packages could not be installed.
set -u
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv" || exit 2
"$dir/venv/bin/pip" install -q --no-compile math-verify==0.9.0 latex2sympy2_extended==1.11.0 \
  antlr4-python3-runtime==4.13.2 sympy==1.14.0 || exit 2
cd "$dir" || exit 2
venv/bin/python - <<'PYTHON'
import signal

from math_verify import parse, verify

signal.signal(signal.SIGALRM, lambda *_: None)


def left_after(call):
    signal.setitimer(signal.ITIMER_REAL, 600)
    call()
    return signal.setitimer(signal.ITIMER_REAL, 0)[0]


five = parse("$5$")
left = {
    "parse": left_after(lambda: parse("$5$")),
    "verify": left_after(lambda: verify(five, five)),
    "parse without limit": left_after(lambda: parse("$5$", parsing_timeout=None)),
    "verify without limit": left_after(lambda: verify(five, five, timeout_seconds=None)),
}
for name, seconds in left.items():
    print(f"{name}: {seconds:.0f} of 600 seconds left")
holds = left["parse"] == left["verify"] == 0
holds = holds and min(left["parse without limit"], left["verify without limit"]) > 500

print("still so" if holds else "changed")
raise SystemExit(0 if holds else 1)
PYTHON
