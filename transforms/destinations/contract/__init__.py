"""What a destination must be able to do, one file a part; destination.py lists the parts."""
