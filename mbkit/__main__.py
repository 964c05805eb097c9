"""`python -m mbkit`: the same as the `mbkit` command."""

from mbkit.cli import main

if __name__ == "__main__":
    main()
