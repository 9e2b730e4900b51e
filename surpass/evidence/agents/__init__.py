"""Evidence of the agents family."""
