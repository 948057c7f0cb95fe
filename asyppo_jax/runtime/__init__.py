"""Devices, processes and file paths of a run (`config.mesh`)."""
