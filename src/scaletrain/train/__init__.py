"""The training loop over a DeepSpeed engine, its checkpoints' contents and its launchers."""

from scaletrain.train.held_back import hold_back

hold_back()  # before anything imports DeepSpeed
