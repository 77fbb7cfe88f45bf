"""The floor of files: images read and written, folders listed, sheets; below all that uses it."""
