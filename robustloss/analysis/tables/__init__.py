"""One file for each table of results.json, or for a few that belong together."""
