"""`python -m scaletrain`: the command `scaletrain`, where its script is not on the path."""

from scaletrain.cli import main

if __name__ == "__main__":
    main()
