#!/usr/bin/env bash
# jax 0.10.2 (Python 3.11), CPU.
#
# Expected: an exception that a signal handler raises, as KeyboardInterrupt of Ctrl-C or that of a handler for
#   SIGTERM, stops the main program, wherever the signal arrives.
# Seen: `import jax` adds a callback to Python's garbage collector. A signal that arrives while the collector
#   works is handled at the next line of Python, and that is in this callback: Python prints "Exception ignored
#   in: <function _xla_gc_callback ...>", and the program goes on. Without jax the collector raises it.
# Who meets it: a preempted job whose SIGTERM handler raises to save and leave, and whoever presses Ctrl-C while
#   a large model is traced, which makes much garbage: now and then the signal is lost.
#
# Exit status: 0 the behaviour is still there, 1 it changed, 2 the packages could not be installed.
set -u
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv" || exit 2
"$dir/venv/bin/pip" install -q --no-compile jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 || exit 2
cd "$dir" || exit 2
cat > stop.py <<'PYTHON'
import gc
import signal
import sys
import time

if sys.argv[1] == "jax":
    import jax  # noqa: F401

objects = [[number] for number in range(3_000_000)]  # the collector needs some tenths of a second


class Stop(Exception):
    pass


def stop(*_):
    raise Stop


signal.signal(signal.SIGALRM, stop)
gc.disable()
started = time.perf_counter()
gc.collect()
middle = (time.perf_counter() - started) / 2
raised = 0
for _ in range(5):
    try:
        signal.setitimer(signal.ITIMER_REAL, middle)
        gc.collect()
        time.sleep(2 * middle)
    except Stop:
        raised += 1
print(raised)
PYTHON
without=$(venv/bin/python stop.py alone)
with=$(JAX_PLATFORMS=cpu venv/bin/python stop.py jax 2> messages)
echo "of 5 signals during a collection, raised without jax: $without, with jax: $with"
grep -m 1 "Exception ignored" messages
if [ "$without" = 5 ] && [ "$with" = 0 ] && grep -q "_xla_gc_callback" messages; then echo "still so"; exit 0; fi
echo "changed"
exit 1
