"""Problems with known answers: environments, simulators, verifiers, tabular models."""
