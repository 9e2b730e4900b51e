"""Off-policy evaluation: what logged decisions say about another policy."""
