"""The record of a run: in the manifest, in the pictures that it saves, and on the contact sheet of a sweep.

Public: the names below, for nodes that save pictures.
"""

from graphflow.record.png_text import same_but_for_text
from graphflow.record.record import holds_record, with_record

__all__ = ["holds_record", "same_but_for_text", "with_record"]
