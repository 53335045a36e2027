"""Networks that choose, for each input, which computation to run."""
