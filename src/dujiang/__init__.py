"""Dujiang (都江) gets images out of a paid API that allows only a few jobs at a time."""

__version__ = "0.1.0"
