"""Data sets and warm-started models that our own methods make, cached with checksum."""

from surpass.zoo.shelf import Zoo, item, items

__all__ = ["Zoo", "item", "items"]
