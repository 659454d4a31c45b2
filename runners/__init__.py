"""One profile per Beam runner: what it may promise, and which options it must refuse.

registry.py finds the profile. Nothing here knows about payments.
"""
