"""Judge real weights on real images: the accuracies that ../shared/weights/README.md names beside what is seen.

    CNNZOO_DATA=DEST CNNZOO_WEIGHTS=../shared/weights python scripts/verify_weights.py      # five minutes on two cores

CNNZOO_DATA is what ../shared/data/unpack laid out. Exits with 1 where a figure is more than 0.2 points off.
"""

import os
import sys
import time
from pathlib import Path

import torch

import cnnzoo
from cnnzoo import bars

# file: the net, what it is judged on, top-1 and top-5 in percent as the README has them
ASKED = {
    "googlenet_bvlc_caffe.pth": ("googlenet_2014", "imagenet_samples", 78.4, 92.6),
    "squeezenet1_1_caffe.pth": ("squeezenet1_1", "imagenet_samples", 63.4, 85.0),
    "resnet20-12fca82f.th": ("resnet20", "cifar10_jpeg", 81.03, None),
    "resnet32-d509ac18.th": ("resnet32", "cifar10_jpeg", 82.56, None),
    "resnet56-4bfd9763.th": ("resnet56", "cifar10_jpeg", 83.20, None),
}


def on_samples(name: str, file: Path, folder: Path) -> tuple[float, float]:
    """Photos whose name begins with the class: top-1 and top-5 in percent."""
    net, paths, hits = cnnzoo.create(name, file).eval(), sorted(folder.glob("*.jpg")), []
    preprocess = cnnzoo.preprocessing(net)
    with torch.inference_mode():
        for start in bars.show(range(0, len(paths), 50)):
            chosen = paths[start : start + 50]
            best = net(torch.stack([preprocess(path) for path in chosen])).topk(5).indices
            hits.append(best == torch.tensor([int(path.name[:3]) for path in chosen])[:, None])
    hits = torch.cat(hits).double()
    return 100 * hits[:, 0].mean().item(), 100 * hits.sum(1).mean().item()


def main() -> int:
    data, weights = (Path(os.environ[key]) for key in ("CNNZOO_DATA", "CNNZOO_WEIGHTS"))
    print(f"date {time.strftime('%Y-%m-%d')} torch {torch.__version__}")
    off = 0
    for file, (name, source, *asked) in ASKED.items():
        if source == "imagenet_samples":
            seen = on_samples(name, weights / file, data / source)
        else:
            figures = cnnzoo.evaluate(name, str(data / source), pretrained=str(weights / file))
            seen = (100 * figures.top1, 100 * figures.top5)
        told = [
            f"{what} {s:.2f} % (asked {a})" for what, s, a in zip(("top-1", "top-5"), seen, asked, strict=True) if a
        ]
        print(f"{name:<16} {file:<26} {source:<17} {'   '.join(told)}", flush=True)
        off += any(a and abs(s - a) > 0.2001 for s, a in zip(seen, asked, strict=True))
    return min(off, 1)


if __name__ == "__main__":
    sys.exit(main())
