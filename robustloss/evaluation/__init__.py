"""A model over images: what it says of clean, attacked and changed images, as Records."""
