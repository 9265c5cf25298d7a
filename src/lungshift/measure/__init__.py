"""Mask against mask: counts, ratios at a named level, surface distances."""
