"""Recipes of the theory family."""
