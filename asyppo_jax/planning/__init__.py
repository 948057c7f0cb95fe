"""Memory, FLOPs and time of a run on a TPU slice, from the TPU compiler and from formulas."""
