"""Who asks: API tokens, roles, and sessions of the console."""
