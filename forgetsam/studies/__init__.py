"""The project's own investigations, on top of all the rest."""
