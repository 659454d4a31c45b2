"""The command `prune`: old payments leave the tables, and the proof goes on without them."""
