"""Archive keys come in, are released, and end."""
