"""`python -m app.cli`, which the demo uses to start its processes with its own interpreter."""

from app.cli.program import main

if __name__ == "__main__":
    main()
