"""Settings of ``quantize`` given as text."""

from dfmeta.compress._quantize_settings import configured

__all__ = ["configured"]
