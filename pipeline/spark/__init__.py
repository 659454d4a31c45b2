"""`spark`: Spark on this machine."""
