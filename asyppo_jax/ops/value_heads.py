"""How a critic's output becomes a value: linear, bounded, or the mean of a distribution.

z is the output of the value head: one number per token, or M logits for a "bins" head. Rewards are
in [low, high], Δ = high − low.
"""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# A bounded head starts at least this share of Δ from its ends, where its slope would vanish.
_MARGIN = 0.02


@dataclass(frozen=True)
class ValueHead:
    """V as a function of z.

    "linear": V = z
    "atan": V = low + Δ (½ + atan(z) / π), BPCO, arXiv 2608.23566
    "sigmoid": V = low + Δ / (1 + e^−z)
    "bins": V = Σ_m softmax(z)_m c_m, with M evenly spaced c_m from low to high (arXiv 2403.03950)
    """

    kind: Literal["linear", "atan", "sigmoid", "bins"] = "linear"
    low: float = 0.0
    high: float = 1.0
    bins: int = 0  # M; 0 unless the kind is "bins"

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape of z per token: () or (M,)."""
        return (self.bins,) if self.kind == "bins" else ()

    @property
    def centers(self) -> np.ndarray:
        """c_m [M], float32."""
        return np.linspace(self.low, self.high, self.bins, dtype=np.float32)

    def value(self, outputs: Float[Array, "..."]) -> Float[Array, "..."]:
        """V of each z; for "bins" the last axis of z is M and disappears."""
        scale = self.high - self.low
        if self.kind == "atan":
            return self.low + scale * (0.5 + jnp.arctan(outputs) / jnp.pi)
        if self.kind == "sigmoid":
            return self.low + scale * jax.nn.sigmoid(outputs)
        if self.kind == "bins":
            return jax.nn.softmax(outputs, axis=-1) @ jnp.asarray(self.centers)
        return outputs

    def value_around(
        self, outputs: Float[Array, "K B T"], anchor: Float[Array, " B"]
    ) -> Float[Array, "K B T"]:
        """V = head(head⁻¹(anchor) + z): an output of 0 stands for the row's anchor."""
        return self.value(outputs + self.inverse(anchor)[None, :, None])

    def inverse(self, value: Float[Array, "*B"]) -> Float[Array, "*B"]:
        """The z of a value, for a head with one output; away from the ends of a bounded head."""
        if self.kind == "linear":
            return value
        share = jnp.clip((value - self.low) / (self.high - self.low), _MARGIN, 1 - _MARGIN)
        if self.kind == "atan":
            return jnp.tan(jnp.pi * (share - 0.5))
        return jnp.log(share) - jnp.log1p(-share)
