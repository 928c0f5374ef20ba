"""The version comes from the installed package, which has it from pyproject.toml."""

from __future__ import annotations

import importlib.metadata

import pytest

import avhubert


def test_the_version_is_that_of_the_installed_package() -> None:
    assert avhubert.__version__ == importlib.metadata.version("avhubert")


def test_sources_that_are_not_installed_have_a_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert avhubert.__version__ == "0.0.0+uninstalled"


def test_unknown_names_are_reported() -> None:
    with pytest.raises(AttributeError, match="module 'avhubert' has no attribute 'nonsense'"):
        avhubert.nonsense  # noqa: B018
