"""`check`: was a row lost, doubled or altered? command.py runs all checks in order."""
