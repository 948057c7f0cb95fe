"""The code around the cuDNN kernels, with the kernels replaced by XLA, against plain attention."""

import jax
import jax.numpy as jnp
import numpy as np

from asyppo_jax.models.attention.causal_kernels import (
    cudnn_as_xla,
    cudnn_packed_as_xla,
)
from tests.models.attention.inputs import attention_inputs, output_and_gradients, plain_attention


def test_rows_padded_at_the_end_agree_in_bfloat16():
    lengths = jnp.array([[17], [24]])
    inputs = *attention_inputs(24)[:3], (jnp.arange(24)[None] < lengths).astype(jnp.int32)
    cudnn = lambda q, k, v, s: cudnn_as_xla(q, k, v, s, s)  # noqa: E731
    ours, expected = (output_and_gradients(f, inputs) for f in (cudnn, plain_attention))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=4e-2), ours, expected)


def test_packed_rows_padded_to_full_tiles_agree_in_bfloat16():
    inputs = attention_inputs(150)
    cudnn = lambda q, k, v, s: cudnn_packed_as_xla(q, k, v, s, s)  # noqa: E731
    ours, expected = (output_and_gradients(f, inputs) for f in (cudnn, plain_attention))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=8e-2), ours, expected)
