"""The tasks that have a name, one a file."""
