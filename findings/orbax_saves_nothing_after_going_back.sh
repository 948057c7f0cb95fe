#!/usr/bin/env bash
# orbax-checkpoint 0.12.8, jax 0.10.2 (Python 3.11), CPU.
#
# Expected: after restoring an earlier step, save() of the steps that follow writes them (or says that it
#   doesn't).
# Seen: CheckpointManager.save returns False and writes nothing for any step below the latest one on disk,
#   although no checkpoint of that step exists. With steps 100, 200, 300 and a return to 100, the steps 110,
#   150 and 250 are not saved. Nothing is logged at warning level. force=True writes them.
# Who meets it: a run that goes back behind a divergence and trains on: until it has passed the old latest
#   step it has no checkpoint, and after a crash it resumes from the diverged one.
#
# Exit status: 0 the behaviour is still there, 1 it changed, 2 the packages could not be installed.
set -u
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv" || exit 2
"$dir/venv/bin/pip" install -q --no-compile jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 \
  ml_dtypes==0.6.0 orbax-checkpoint==0.12.8 || exit 2
cd "$dir" || exit 2
JAX_PLATFORMS=cpu venv/bin/python - <<'PYTHON'
import logging
import os

import jax.numpy as jnp
import orbax.checkpoint as ocp

warnings = []
handler = logging.Handler(logging.WARNING)
handler.emit = lambda record: warnings.append(record.getMessage())
logging.getLogger("absl").addHandler(handler)

with ocp.CheckpointManager(os.path.abspath("run")) as manager:
    save = lambda step, **kwargs: manager.save(
        step, args=ocp.args.StandardSave({"w": jnp.full(2, float(step))}), **kwargs
    )
    first = [save(step) for step in (100, 200, 300)]
    manager.wait_until_finished()
    manager.restore(100, args=ocp.args.StandardRestore({"w": jnp.zeros(2)}))
    warnings.clear()
    again = [save(step) for step in (110, 150, 250)]
    said = list(warnings)
    manager.wait_until_finished()
    steps = list(manager.all_steps())
    forced = save(260, force=True)
print(f"saved {first}; after going back {again}, on disk {steps}, warnings {said}; forced {forced}")
holds = all(first) and not any(again) and steps == [100, 200, 300] and not said and forced

print("still so" if holds else "changed")
raise SystemExit(0 if holds else 1)
PYTHON
