"""Evidence of the rlvr family."""
