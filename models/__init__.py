"""Trained weights that ship; importable so that an installed wheel finds them."""
