"""Turns Task resources into messages for workers, and what workers report into status.

`assembly` puts the controllers together; `docs/code-map.md` has the map. Only `kopf_handlers` imports Kopf.
"""
