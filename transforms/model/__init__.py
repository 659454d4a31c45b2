"""The words that all steps share: elements, tables, schema, coordinates, fingerprints, totals.

Nothing here imports another package of transforms.
"""
