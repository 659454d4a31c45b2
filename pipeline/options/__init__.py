"""From argv to a RunConfig: every option is checked before anything starts.

run_config.py does it for `run`; flags.py declares its options.
"""
