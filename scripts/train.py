"""What `cnnzoo train` does, as a file: python scripts/train.py --config configs/lenet5_digits.yaml"""

import sys

from cnnzoo.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
