"""Checks that the library transformers is installed."""

from __future__ import annotations

from importlib import metadata

from packaging.version import Version

OLDEST = "5.8"  # renames tensors back in the opposite order; as the extra `hf` in pyproject.toml says


def require_transformers() -> None:
    """Check the installed release.

    Raises:
        ImportError: transformers is missing, or too old.
    """
    try:
        version = metadata.version("transformers")
    except metadata.PackageNotFoundError as error:
        raise ImportError("avhubert.hf needs transformers: pip install 'avhubert[hf]'", name="transformers") from error
    if Version(version) < Version(OLDEST):
        raise ImportError(
            f"avhubert.hf needs transformers {OLDEST} or newer, and {version} is installed: pip install 'avhubert[hf]'",
            name="transformers",
        )
