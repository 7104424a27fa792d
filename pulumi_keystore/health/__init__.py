"""Is a keystore there: the test of every minute, what its results mean, and when somebody is told."""
