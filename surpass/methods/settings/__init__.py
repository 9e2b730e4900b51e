"""Methods for other settings: constraints, many agents, many tasks, rewards that come later."""
