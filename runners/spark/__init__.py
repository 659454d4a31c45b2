"""Beam's portable Spark runner: what it may promise, and Spark on this machine.

version.py has all that depends on a version of Spark or of Beam's runner for it. Nothing here knows
about payments.
"""
