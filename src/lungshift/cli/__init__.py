"""The command line: each command reads its words, calls one function and shows what came of it."""
