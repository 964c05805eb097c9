"""Models of mbrl-lib: run as they are, or converted, with their files."""
