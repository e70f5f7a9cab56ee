"""From stored files to the rows of results.json."""
