"""`flink`: a Flink cluster on this machine, to try streaming out and to test it."""
