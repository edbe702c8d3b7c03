"""Readers of file formats, one a file. They give samples and labels and know nothing of tasks."""
