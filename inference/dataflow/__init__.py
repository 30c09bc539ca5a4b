"""Prepares a job on Dataflow: checks the launch, and builds, inspects and compares container images."""
