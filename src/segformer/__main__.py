"""``python -m segformer``."""

from segformer.cli.main import main

if __name__ == "__main__":
    main()
