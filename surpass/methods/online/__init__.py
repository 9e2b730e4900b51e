"""Methods that learn control by acting."""
