"""What a job on Dataflow needs: checks before it starts, and the container image of its workers."""
