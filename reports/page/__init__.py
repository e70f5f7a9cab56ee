"""From tables, figures and sentences to one HTML file."""
