"""The `avhubert` command."""

from avhubert.cli.app import main

__all__ = ["main"]
