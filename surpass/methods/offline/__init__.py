"""Methods that learn control from a fixed log."""
