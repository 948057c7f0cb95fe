"""What a run writes and what is read back: checkpoints, metrics, plots, exports."""
