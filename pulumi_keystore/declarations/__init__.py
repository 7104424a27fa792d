"""What may be declared, and whether it can be right: pure, without a service or a network."""
