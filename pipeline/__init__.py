"""From argv to a running job."""

__version__ = "0.1.0"
