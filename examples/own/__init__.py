"""Models as other teams have them, which know nothing of nightrec, each with the TOML file that brings it in."""
