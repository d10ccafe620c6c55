"""`python -m edgevl`: the command line, where the folder that holds `edgevl` is not on the PATH."""

from edgevl.cli import main

if __name__ == "__main__":
    main()
