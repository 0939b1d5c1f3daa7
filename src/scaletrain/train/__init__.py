"""The training loop over a DeepSpeed engine, its checkpoints' contents and its launchers."""
