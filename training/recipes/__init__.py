"""One TOML file per network that can be trained; importable so that an installed wheel finds them."""
