"""Evidence of the preference family."""
