"""Corpora: where source clips come from."""
