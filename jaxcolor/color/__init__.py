"""Color spaces, gamut, palette and color distributions; imports nothing else of jaxcolor."""
