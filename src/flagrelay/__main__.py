"""`python -m flagrelay`, the same as `flagrelay`."""

from flagrelay.cli.main import main

if __name__ == "__main__":
    main()
