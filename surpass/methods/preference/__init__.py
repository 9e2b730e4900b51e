"""Learning from preferences, labels and demonstrations."""
