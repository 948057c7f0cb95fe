#!/usr/bin/env bash
# jax 0.10.2 (Python 3.11), CPU.
#
# Expected: dot_product_attention(is_causal=True) with fewer queries than keys: the last query is at the last
#   key, as when tokens are decoded behind a KV cache (so it is in FlashAttention since 2.1).
# Seen: the first query is at the first key. One query with 8 keys attends to key 0 alone and not to the 7
#   later ones; two queries see 1 and 2 keys.
# Who meets it: decoding or a prefill in chunks with is_causal=True. The output is finite and smooth, so the
#   model only gets worse. Pass a mask that is aligned at the end.
#
# Exit status: 0 the behaviour is still there, 1 it changed, 2 the packages could not be installed.
set -u
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv" || exit 2
"$dir/venv/bin/pip" install -q --no-compile jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 ml_dtypes==0.6.0 || exit 2
cd "$dir" || exit 2
JAX_PLATFORMS=cpu venv/bin/python - <<'PYTHON'
import jax
import jax.numpy as jnp

keys = jnp.ones((1, 8, 1, 4))  # equal keys: the output is the mean of the values that are seen
values = jnp.arange(8.0).reshape(1, 8, 1, 1) * jnp.ones(4)
outputs = {}
for count in (1, 2):
    queries = jnp.ones((1, count, 1, 4))
    attend = jax.nn.dot_product_attention
    outputs[count] = attend(queries, keys, values, is_causal=True)[0, :, 0, 0].tolist()
    print(f"{count} queries: {outputs[count]}; aligned at the end, the last would be 3.5")
holds = outputs == {1: [0.0], 2: [0.0, 0.5]}

print("still so" if holds else "changed")
raise SystemExit(0 if holds else 1)
PYTHON
