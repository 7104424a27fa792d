"""The service behind the plugin: which keystore is active for whom, and every change of it."""
