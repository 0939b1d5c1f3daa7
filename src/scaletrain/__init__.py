"""scaletrain: fine-tune chat models on rented machines that may vanish at any moment."""

__version__ = "0.1.0"
