"""In a pod: files of a volume from those of a ConfigMap, and a link that leads out of it."""

import base64
import pathlib

volume, files = pathlib.Path("/volume"), pathlib.Path("/files")
for name in ("payments", "labels"):
    (volume / name).mkdir()
    (volume / name / "all.csv.gz").write_bytes(base64.b64decode((files / name).read_text()))
(volume / "escape").mkdir()
(volume / "escape" / "all.csv").symlink_to("/var/run/truekeep/secrets/lake/AWS_SECRET_ACCESS_KEY")
print("written", flush=True)
