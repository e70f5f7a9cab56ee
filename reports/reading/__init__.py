"""What the report knows of a run: numbers, marks, stored arrays, published values."""
