"""Executors: where clips are prepared, one file each."""
