"""The command line, one command per file; `main.main` is the entry point."""
