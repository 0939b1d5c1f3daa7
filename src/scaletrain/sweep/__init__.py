"""Sweeps: many runs of one configuration that differ in some fields, and what is learned from them."""
