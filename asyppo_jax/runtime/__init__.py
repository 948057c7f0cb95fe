"""Devices, processes and paths (`config.mesh`)."""
