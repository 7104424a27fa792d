"""Whatever the file that DECLARED names lists as [type, name, inputs, options], one after the other."""

import json
import os
from pathlib import Path

import pulumi

import pulumi_keystore

made = []
for kind, name, inputs, options in json.loads(Path(os.environ["DECLARED"]).read_text()):
    before = made if os.environ.get("IN_TURN", "yes") == "yes" else []
    opts = pulumi.ResourceOptions(depends_on=before[-1:], **options)
    made.append(getattr(pulumi_keystore, kind)(name, **inputs, opts=opts))
