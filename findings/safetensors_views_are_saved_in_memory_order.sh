#!/usr/bin/env bash
# safetensors 0.8.0, numpy 2.4.6 (Python 3.11).
#
# Expected: save_file of a NumPy array writes what the array shows, or refuses.
# Seen: a transpose, an array in Fortran order, a slice with a step and a reversed array are written as the
#   bytes that lie in memory from their first element on, under the view's shape. No error, no warning: the
#   loaded tensor has the right shape and type and other numbers. `save` does the same.
# Who meets it: an export to Hugging Face's layout transposes every kernel of a flax model. Copy with
#   order="C" first.
#
# Exit status: 0 the behaviour is still there, 1 it changed, 2 the packages could not be installed.
set -u
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv" || exit 2
"$dir/venv/bin/pip" install -q --no-compile safetensors==0.8.0 numpy==2.4.6 || exit 2
cd "$dir" || exit 2
venv/bin/python - <<'PYTHON'
import numpy as np
from safetensors.numpy import load, load_file, save, save_file

kernel = np.arange(12, dtype=np.float32).reshape(3, 4)
views = {
    "contiguous": kernel,
    "transpose": kernel.T,
    "Fortran order": np.asfortranarray(kernel),
    "every second column": kernel[:, ::2],
}
right = {}
for name, view in views.items():
    save_file({"kernel": view}, "model.safetensors")
    loaded = load_file("model.safetensors")["kernel"]
    assert loaded.shape == view.shape and loaded.dtype == view.dtype
    right[name] = bool(np.array_equal(loaded, view))
    assert np.array_equal(load(save({"kernel": view}))["kernel"], loaded)
    print(f"{name}: {'as it was' if right[name] else 'other numbers'}")
holds = right == {name: name == "contiguous" for name in views}

print("still so" if holds else "changed")
raise SystemExit(0 if holds else 1)
PYTHON
