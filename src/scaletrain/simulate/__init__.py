"""Runs that never took place: a discrete-event model of training on machines that come, go and cost money.

The rules are those of real runs (scaletrain.policy); machines, prices and interruptions come from a trace.
"""
