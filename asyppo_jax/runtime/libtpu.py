"""libtpu, the TPU runtime and compiler: its options, and what it asks for without a TPU."""

import importlib.util
import os

import jax  # noqa: F401 (its import sets the variables that `_has_tpu` reads)

# Gradients are reduced by reduce-scatters. First, no windowed products: these are loops that send a
# weight's shards while they multiply. Then, reduce-scatters over several dimensions of the torus,
# which otherwise are all-reduces; on chips that have sparse cores, these do them.
REDUCE_SCATTER_OPTIONS = {
    "xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000",
    "xla_tpu_enable_sparse_core_collective_offload_nd_reduce_scatter": True,
    "xla_tpu_enable_sparse_core_collective_offload_reduce_scatter": True,
}

# Weights are all-gathered while the chip computes: an all-gather is divided into steps, and fused
# with products that do not need its result. v5e does so by default, v5p has windowed products.
ASYNC_GATHER_OPTIONS = {
    "xla_enable_async_all_gather": "true",
    "xla_tpu_enable_async_collective_fusion": True,
    "xla_tpu_enable_async_collective_fusion_fuse_all_gather": True,
    "xla_tpu_enable_async_collective_fusion_multiple_steps": True,
    "xla_tpu_overlap_compute_collective_tc": True,
}

# When it is loaded, libtpu asks which slice it is in. Without an answer it prints five lines to
# stderr that look like a failure. Without a chip nothing else depends on the answer: not the other
# platforms, and not the compiler, which is given the name of a slice.
_ANSWERS = {"TPU_ACCELERATOR_TYPE": "v5litepod-1", "TPU_WORKER_HOSTNAMES": "localhost"}


def answer_libtpu() -> None:
    """Sets the environment variables that libtpu asks for, if it is installed but there is no TPU.

    Call it before JAX looks for devices. Variables that are set already are kept.
    """
    if importlib.util.find_spec("libtpu") is not None and not _has_tpu():
        for name, value in _ANSWERS.items():
            os.environ.setdefault(name, value)


def _has_tpu() -> bool:
    # `import jax` looks for chips on the PCI bus: if there are none it sets the first variable, and
    # if there are some it sets the second.
    return os.environ.get("TPU_SKIP_MDS_QUERY") != "1" or "TPU_ML_PLATFORM" in os.environ
