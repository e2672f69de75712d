"""Trained weights that ship; importable so that an installed wheel finds them."""

NETWORKS = (
    "edtaonisl_fast",
    "starry_night_fast",
    "styles",
    "super_resolution_x2",
    "super_resolution_x4",
    "super_resolution_x4_fast",
    "super_resolution_x8",
)
"""Their names; of each, ``NAME.safetensors`` lies in this folder. Other files here do not ship."""

PAINTINGS = {
    "edtaonisl_fast": {"title": "Edtaonisl (Ecclésiastique)", "artist": "Francis Picabia", "year": "1913"},
    "starry_night_fast": {"title": "The Starry Night", "artist": "Vincent van Gogh", "year": "1889"},
}
"""What was painted, by whom and when, of the networks of one style, whose files do not say."""
