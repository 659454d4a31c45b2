"""Beam's portable Flink runner: what it may promise, and a Flink cluster on this machine.

version.py has all that depends on a version of Flink or of Beam's runner for it. Nothing here knows
about payments.
"""
