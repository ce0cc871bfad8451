"""The version, for the package, its logs and its files."""

__version__ = "0.3.0"
