"""What every domain stands on: settings, database, sealing, logs."""
