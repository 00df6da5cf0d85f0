"""The one place of the version; setuptools reads it here without importing the package."""

__version__ = "0.2.0.dev0"
