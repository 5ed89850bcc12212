"""`python -m rewards --reward math data.jsonl`."""

import argparse
import sys

from rewards.cli import add_arguments, main

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m rewards", description="Score the completions of a JSONL file.")
    add_arguments(parser)
    sys.exit(main(parser.parse_args()))
