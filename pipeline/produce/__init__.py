"""`produce`: sends generated payments to a topic. command.py is the command."""
