"""``python -m lungshift`` is the command line."""

from lungshift.cli.main import main

if __name__ == "__main__":
    main()
