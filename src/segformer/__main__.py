"""``python -m segformer``."""

from segformer.cli import main

if __name__ == "__main__":
    main()
