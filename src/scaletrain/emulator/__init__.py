"""Clouds emulated on one Linux machine: real `ray up`, real SSH, no account; needs root."""
