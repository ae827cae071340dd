"""What `cnnzoo train` does, as a file: python scripts/train.py --config configs/lenet5_digits.yaml"""

import sys

from cnnzoo.__main__ import run

if __name__ == "__main__":
    sys.exit(run(["train", *sys.argv[1:]]))
