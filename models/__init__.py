"""Trained weights that ship; importable so that an installed wheel finds them."""

NETWORKS = (
    "styles",
    "styles_fast",
    "super_resolution_x2",
    "super_resolution_x4",
    "super_resolution_x4_fast",
    "super_resolution_x8",
)
"""Their names; of each, ``NAME.safetensors`` lies in this folder. Other files here do not ship."""
