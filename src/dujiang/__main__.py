"""`python -m dujiang`."""

from dujiang.cli import main

if __name__ == "__main__":
    main()
