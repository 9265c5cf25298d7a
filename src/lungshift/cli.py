"""The command line: each command calls one function."""


def main() -> None:
    """Run the command line."""
