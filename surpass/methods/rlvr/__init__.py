"""Learning from rewards that can be checked."""
