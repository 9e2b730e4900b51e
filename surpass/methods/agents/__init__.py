"""Language policies that act in turns, with tools and environments between."""
