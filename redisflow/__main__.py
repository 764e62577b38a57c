"""`python -m redisflow` is the `redisflow` command.

Child processes of the command line are started this way too, since it needs no script on the PATH.
"""

from redisflow.cli import main

if __name__ == "__main__":
    main()
