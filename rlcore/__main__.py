"""`python -m rlcore`, and `torchrun -m rlcore train RECIPE` on many GPUs."""

from rlcore.cli import main

if __name__ == "__main__":
    main()
