"""Attention of whole sequences and of one new token per sequence, per backend."""
