"""The command line: thin. Each command parses, calls what does the work, and shows the answer.

Contract: nobody imports this, but for `private_redis`, which tests and load tests use too. Commands print what a
person reads, or with `--json` what a script reads; every `FlagrelayError` becomes one line on standard error.
"""
