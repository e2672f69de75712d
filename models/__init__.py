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

PAINTINGS = {
    "composition_vii": {"title": "Composition VII", "artist": "Wassily Kandinsky", "year": 1913},
    "edtaonisl": {"title": "Edtaonisl (Ecclésiastique)", "artist": "Francis Picabia", "year": 1913},
    "edtaonisl_fast": {"title": "Edtaonisl (Ecclésiastique)", "artist": "Francis Picabia", "year": 1913},
    "great_wave": {"title": "The Great Wave off Kanagawa", "artist": "Katsushika Hokusai", "year": 1831},
    "starry_night": {"title": "The Starry Night", "artist": "Vincent van Gogh", "year": 1889},
    "starry_night_fast": {"title": "The Starry Night", "artist": "Vincent van Gogh", "year": 1889},
    "the_muse": {"title": "The Muse", "artist": "Pablo Picasso", "year": 1935},
    "the_scream": {"title": "The Scream", "artist": "Edvard Munch", "year": 1893},
    "udnie": {"title": "Udnie (Jeune fille américaine, danse)", "artist": "Francis Picabia", "year": 1913},
}
"""What was painted, by whom and when, of the networks of one style, whose files do not say."""
