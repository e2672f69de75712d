"""Trained weights that ship; importable so that an installed wheel finds them."""

NETWORKS = (
    "composition_vii",
    "edtaonisl",
    "edtaonisl_fast",
    "great_wave",
    "starry_night",
    "starry_night_fast",
    "super_resolution_x4_feature",
    "super_resolution_x4_pixel",
    "super_resolution_x8_feature",
    "super_resolution_x8_pixel",
    "the_muse",
    "the_scream",
    "udnie",
)
"""Their names; of each, ``NAME.safetensors`` lies in this folder. Other files here do not ship."""
