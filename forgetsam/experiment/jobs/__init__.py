"""The jobs of `main.py`, one a file."""
