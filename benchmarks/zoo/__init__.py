"""The model zoo's pages from what the benchmarks have on record; a table a file in `tables`."""
