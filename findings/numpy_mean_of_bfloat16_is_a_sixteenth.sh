#!/usr/bin/env bash
# ml_dtypes 0.6.0, numpy 2.4.6 (Python 3.11).
#
# Expected: np.mean adds narrow floats in float32, as it does for float16 and as jnp.mean does for bfloat16.
# Seen: for ml_dtypes.bfloat16 the sum is kept in bfloat16, which stops at 256 because 256 + 1 is 256. The
#   mean of 4096 ones is 0.0625, their sum 256, their standard deviation 0.25. np.dot of the same array is
#   right (4096). The only sign is the number.
# Who meets it: metrics, losses or rewards that come from a device in bfloat16 and are averaged by NumPy.
#   The error grows with the number of values: up to 256 of them are right.
#
# Exit status: 0 the behaviour is still there, 1 it changed, 2 the packages could not be installed.
set -u
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv" || exit 2
"$dir/venv/bin/pip" install -q --no-compile ml_dtypes==0.6.0 numpy==2.4.6 || exit 2
cd "$dir" || exit 2
venv/bin/python - <<'PYTHON'
import ml_dtypes
import numpy as np

ones = np.ones(4096, ml_dtypes.bfloat16)
mean, total, spread, dot = (float(x) for x in (ones.mean(), ones.sum(), ones.std(), ones.dot(ones)))
print(f"bfloat16: mean {mean}, sum {total}, std {spread}, dot {dot}")
half = float(np.ones(4096, np.float16).mean())
short = float(np.ones(256, ml_dtypes.bfloat16).mean())
print(f"float16: mean {half}; 256 bfloat16 ones: mean {short}")
holds = (mean, total, spread, dot) == (0.0625, 256, 0.25, 4096) and (half, short) == (1, 1)

print("still so" if holds else "changed")
raise SystemExit(0 if holds else 1)
PYTHON
