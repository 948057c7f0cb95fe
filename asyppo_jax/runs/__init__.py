"""The files of a run, written and read: checkpoints, metrics, plots, exports (`config.log`)."""
