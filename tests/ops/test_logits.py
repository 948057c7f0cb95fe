"""Chunked log-probs and entropy equal those of the full logits, without the memory for them."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asyppo_jax.ops import logits

B, C, D, V = 2, 12, 4, 64
CHUNKS = [1, 3, 5, 12, 100]  # two that divide 12, one that does not, exactly 12, more than 12


def inputs(seed=0, batch=B):
    rng = np.random.default_rng(seed)
    hidden = jnp.asarray(rng.standard_normal((batch, C, D)), jnp.float32)
    head = jnp.asarray(rng.standard_normal((D, V)), jnp.float32)
    return hidden, head, jnp.asarray(rng.integers(0, V, (batch, C)))


def naive(hidden, head, targets):
    """The same results from all logits at once."""
    log_p = jax.nn.log_softmax(hidden @ head, axis=-1)
    log_probs = jnp.take_along_axis(log_p, targets[..., None], axis=-1)[..., 0]
    return log_probs, -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)


def weighted(function, hidden, head, targets):
    """A scalar that weights every position's log-prob and entropy differently."""
    log_probs, entropy = function(hidden, head, targets)
    position = jnp.arange(1.0, log_probs.size + 1).reshape(log_probs.shape)
    return jnp.sum(jnp.sin(position) * log_probs + jnp.cos(position) * entropy)


gradient = jax.jit(jax.grad(weighted, argnums=(1, 2)), static_argnums=0)


def chunked(chunk):
    return functools.partial(logits.log_probs_and_entropy, chunk=chunk)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_chunked_results_equal_those_of_the_full_logits(chunk):
    results = chunked(chunk)(*inputs())
    for result, expected in zip(results, naive(*inputs()), strict=True):
        assert result.shape == (B, C)
        np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_chunked_gradients_equal_those_of_the_full_logits(chunk):
    hidden, head, targets = inputs()
    expected = gradient(naive, hidden, head, targets)
    gradients = gradient(chunked(chunk), hidden, head, targets)
    for result, full in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(result, full, rtol=1e-5, atol=2e-6)


def needed_mask(counts):
    """A mask with `counts[b]` true entries in row b, at random positions."""
    shuffled = np.random.default_rng(5).permuted(np.tile(np.arange(C), (B, 1)), axis=1)
    return jnp.asarray(shuffled < np.array(counts)[:, None])


@pytest.mark.parametrize("chunk", CHUNKS)
def test_needed_positions_have_the_same_results_and_gradients_and_all_others_zero(chunk):
    needed = needed_mask((4, 7))
    ours = functools.partial(chunked(chunk), needed=needed)

    def expected(*args):
        return [jnp.where(needed, x, 0.0) for x in naive(*args)]

    for result, full in zip(ours(*inputs()), expected(*inputs()), strict=True):
        np.testing.assert_allclose(result, full, rtol=1e-6, atol=1e-6)
    gradients, full = gradient(ours, *inputs()), gradient(expected, *inputs())
    for result, other in zip(gradients, full, strict=True):
        np.testing.assert_allclose(result, other, rtol=1e-5, atol=2e-6)
    assert not np.asarray(gradients[0])[~np.asarray(needed)].any()


@pytest.mark.parametrize(
    ("counts", "chunks"), [((0, 0), 0), ((3, 1), 1), ((4, 7), 3), ((12, 2), 4)]
)
def test_chunks_without_a_needed_position_are_never_computed(counts, chunks):
    computed_chunks = []
    original = logits._log_prob_and_entropy

    def counting(hidden, head, targets):
        jax.debug.callback(lambda: computed_chunks.append(1))
        return original(hidden, head, targets)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logits, "_log_prob_and_entropy", counting)
        jax.block_until_ready(chunked(3)(*inputs(), needed=needed_mask(counts)))
        jax.effects_barrier()
    assert len(computed_chunks) == chunks


def test_results_equal_a_slow_loop_in_float64():
    hidden, head, targets = inputs()
    log_probs, entropy = chunked(5)(hidden, head, targets)
    for b in range(B):
        for t in range(C):
            row = np.asarray(hidden[b, t], np.float64) @ np.asarray(head, np.float64)
            p = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
            assert log_probs[b, t] == pytest.approx(math.log(p[targets[b, t]]), rel=2e-6)
            assert entropy[b, t] == pytest.approx(-sum(p * np.log(p)), rel=2e-6)


def test_a_hand_computed_example():
    # Logits log 1, log 1, log 2: probabilities 1/4, 1/4, 1/2.
    # log p(2) = -log 2; H = 1/4 * log 4 + 1/4 * log 4 + 1/2 * log 2 = 3/2 * log 2
    hidden = jnp.array([[[1.0]]])
    head = jnp.log(jnp.array([[1.0, 1.0, 2.0]]))
    log_probs, entropy = chunked(1)(hidden, head, jnp.array([[2]]))
    assert log_probs[0, 0] == pytest.approx(-math.log(2), rel=1e-6)
    assert entropy[0, 0] == pytest.approx(1.5 * math.log(2), rel=1e-6)


def test_equal_logits_have_the_largest_entropy():
    log_probs, entropy = chunked(5)(jnp.zeros((B, C, D)), inputs()[1], inputs()[2])
    np.testing.assert_allclose(entropy, math.log(V), rtol=1e-6)
    np.testing.assert_allclose(log_probs, -math.log(V), rtol=1e-6)


def test_the_entropy_gradient_with_respect_to_a_logit_is_minus_p_times_log_p_plus_h():
    # With the identity as head, the hidden state is the logits: dH/dz_v = -p_v * (log p_v + H).
    z = jax.random.normal(jax.random.key(1), (1, 3, 5))
    head, targets = jnp.eye(5), jnp.zeros((1, 3), int)
    grad_logits = jax.jit(jax.grad(lambda h: jnp.sum(chunked(2)(h, head, targets)[1])))(z)
    log_p = jax.nn.log_softmax(z, axis=-1)
    entropy = -jnp.sum(jnp.exp(log_p) * log_p, axis=-1, keepdims=True)
    np.testing.assert_allclose(
        grad_logits, -jnp.exp(log_p) * (log_p + entropy), rtol=1e-5, atol=1e-6
    )


def test_large_logits_neither_overflow_nor_give_nan():
    hidden, head, targets = (
        jnp.full((1, 2, 1), 1e4),
        jnp.array([[1.0, 0.0, -1.0]]),
        jnp.zeros((1, 2), int),
    )
    for chunk in (1, 2):
        log_probs, entropy = chunked(chunk)(hidden, head, targets)
        np.testing.assert_array_equal(log_probs, 0.0)
        np.testing.assert_array_equal(entropy, 0.0)
        gradients = gradient(chunked(chunk), hidden, head, targets)
        assert all(np.isfinite(g).all() for g in gradients)


def test_a_token_with_logit_minus_infinity_adds_nothing_to_the_entropy():
    head = jnp.array([[0.0, 0.0, -jnp.inf]])
    log_probs, entropy = chunked(1)(jnp.ones((1, 2, 1)), head, jnp.array([[0, 2]]))
    np.testing.assert_allclose(entropy, math.log(2), rtol=1e-6)
    np.testing.assert_allclose(log_probs, [[-math.log(2), -np.inf]], rtol=1e-6)


def test_results_are_float32_and_close_in_bfloat16():
    hidden, head, targets = inputs()
    results = chunked(5)(hidden.astype(jnp.bfloat16), head, targets)
    expected = naive(hidden, head, targets)
    for result, exact in zip(results, expected, strict=True):
        assert result.dtype == jnp.float32
        # bfloat16 has 8 bits: logits of size 10 are off by a few hundredths.
        np.testing.assert_allclose(result, exact, atol=0.1)


def test_each_position_depends_only_on_its_own_hidden_state():
    hidden, head, targets = inputs(batch=1)
    jacobians = jax.jit(jax.jacobian(chunked(5)))(hidden, head, targets)
    for jacobian in jacobians:
        influence = np.abs(jacobian).sum(axis=-1)[0, :, 0, :]  # [C, C]
        assert (np.diag(influence) > 0).all()
        np.testing.assert_array_equal(influence, np.diag(np.diag(influence)))


def array_sizes(jaxpr):
    """The number of elements of every array in a program, including those inside loops."""
    for equation in jaxpr.eqns:
        for variable in equation.outvars:
            yield math.prod(variable.aval.shape)
        for parameter in jax.tree.leaves(equation.params, is_leaf=is_jaxpr):
            if is_jaxpr(parameter):
                yield from array_sizes(getattr(parameter, "jaxpr", parameter))


def is_jaxpr(x):
    return hasattr(x, "eqns")


def largest_array(function, *args):
    return max(array_sizes(jax.make_jaxpr(function)(*args).jaxpr))


@pytest.mark.parametrize("chunk", [1, 3, 5])
def test_no_array_of_all_logits_exists_forward_or_backward(chunk):
    all_logits = B * C * V
    both = jax.value_and_grad(weighted, argnums=(1, 2))
    for program in (
        lambda f: functools.partial(weighted, f),
        lambda f: functools.partial(both, f),
    ):
        assert largest_array(program(naive), *inputs()) >= all_logits, "the check sees no logits"
        largest = largest_array(program(chunked(chunk)), *inputs())
        assert largest <= max(B * chunk * V, D * V)


def test_compiled_memory_grows_with_the_chunk_and_not_with_the_length():
    # The memory that XLA allocates, because it may optimise the program's chunks away.
    def temporary_bytes(function, length):
        hidden, head = jnp.zeros((B, length, D)), jnp.zeros((D, 4096))
        targets = jnp.zeros((B, length), int)
        lowered = gradient.lower(function, hidden, head, targets)
        memory = lowered.compile().memory_analysis()
        assert memory is not None, "this backend has no memory analysis"
        return memory.temp_size_in_bytes

    logits_bytes = 4 * B * 64 * 4096
    assert temporary_bytes(naive, 64) >= logits_bytes
    assert temporary_bytes(chunked(4), 64) < logits_bytes / 3


def test_compiled_and_batched_variants_agree(assert_variants_agree):
    batches = [jnp.stack(arrays) for arrays in zip(inputs(0), inputs(1), strict=True)]
    for chunk in (5, 12):
        assert_variants_agree(chunked(chunk), *batches)
