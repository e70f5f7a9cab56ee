"""Every choice that decides a run: one file for each table of the TOML file."""
