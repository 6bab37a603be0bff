"""Write labelled pictures for `pretrain_supervised.yaml`: scikit-learn's digit scans, a folder per class.

    python configs/digits_folder.py scans      # makes scans/zero/..._0.png and so on

Four pictures of each of the 847 scans that the demo's pool is made of; the evaluation set `digits` holds other scans.
The same pictures every time.
"""

import sys
from pathlib import Path

from curate.shards.demo.digits import (  # pyright: ignore[reportMissingImports]  (installed, not found from here)
    WORDS,
    encode,
    random,
    random_size,
    render,
    scans,
    split,
)

PICTURES = 4  # of each scan


def main(folder: str) -> None:
    images, labels = scans()
    for scan in split()["pool"]:
        place = Path(folder, WORDS[labels[scan]])
        place.mkdir(parents=True, exist_ok=True)
        for number in range(PICTURES):
            rng = random(7, int(scan), number)
            picture = render(images[scan], rng, random_size(rng))
            (place / f"{scan:04d}_{number}.png").write_bytes(encode(picture, "png"))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python configs/digits_folder.py FOLDER")
    main(sys.argv[1])
