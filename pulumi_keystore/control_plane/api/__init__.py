"""The HTTP API: thin routes over the control plane, a module for each noun."""
