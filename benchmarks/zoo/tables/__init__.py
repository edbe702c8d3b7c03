"""A table a file: a function of the results on record, and what it says about itself in both languages."""
