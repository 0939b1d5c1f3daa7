"""Building, generating with and exporting causal language models."""
