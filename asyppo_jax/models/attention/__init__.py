"""Causal attention, with several backends: over full sequences, and for decoding one new token."""
