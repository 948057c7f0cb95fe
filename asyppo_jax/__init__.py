"""AsyPPO in pure JAX: a large actor, and an ensemble of small critics (arXiv 2510.01656)."""

__version__ = "0.1.0"
