"""One run from slices to receipts: pipeline, handler, sink, run folder, summary, progress."""
