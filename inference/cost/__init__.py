"""What a run takes and costs: prices, a sample of the corpus, an estimate, the bill of a job."""
