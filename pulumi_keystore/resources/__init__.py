"""The Pulumi resources: thin dynamic providers over the control plane's API.

Module paths and class names of the providers are in users' state (providers are pickled by reference): they are
public API and never change.
"""
