"""Labels a JSONL corpus with trained models: slices in, predictions, failures and receipts out.

`python -m inference.beam_runner --help` is the main entry; `python -m inference.run` does the same without Beam.
"""
