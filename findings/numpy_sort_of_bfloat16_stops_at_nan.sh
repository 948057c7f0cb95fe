#!/usr/bin/env bash
# ml_dtypes 0.6.0, numpy 2.4.6 (Python 3.11).
#
# Expected: np.sort puts NaN last, and np.median and np.quantile of an array with NaN are NaN, as for float32.
# Seen: for ml_dtypes.bfloat16 a NaN stays about where it is and what is on its two sides is not exchanged: the
#   result is not sorted. argsort is wrong in the same way; the median is an ordinary number of the array.
#   np.max is NaN, as it should be.
# Who meets it: quantiles of log-probabilities or of gradients in bfloat16, where a NaN should show; and ranking by
#   argsort, where one bad score upsets the order of the good ones.
#
# Exit status: 0 the behaviour is still there, 1 it changed, 2 the packages could not be installed.
set -u
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv" || exit 2
"$dir/venv/bin/pip" install -q --no-compile ml_dtypes==0.6.0 numpy==2.4.6 || exit 2
cd "$dir" || exit 2
venv/bin/python - <<'PYTHON'
import warnings

import ml_dtypes
import numpy as np

warnings.simplefilter("ignore")
values = np.array([3, np.nan, 1, 5, 2], np.float32)
narrow = values.astype(ml_dtypes.bfloat16)
for array in (values, narrow):
    print(array.dtype, np.sort(array), np.argsort(array), "median", np.median(array), "max", array.max())
others = np.sort(narrow).astype(np.float32)
others = others[~np.isnan(others)]
holds = np.argsort(values).tolist() == [2, 4, 0, 3, 1] and bool(np.isnan(np.median(values)))
holds = holds and bool((np.diff(others) < 0).any()) and bool(np.isfinite(np.median(narrow)))
holds = holds and bool(np.isnan(narrow.max()))

print("still so" if holds else "changed")
raise SystemExit(0 if holds else 1)
PYTHON
