"""What a destination must be able to do, one file per part; destination.py lists the parts."""
