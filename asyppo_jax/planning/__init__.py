"""What a run needs on a TPU slice, from the real compiler and from formulas."""
