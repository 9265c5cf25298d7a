"""Bad input, faults and hard questions: suites that take too long for tests, each run by itself."""
