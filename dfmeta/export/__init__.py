"""The export floor: students as files for other runtimes, and the proof that they compute the same."""

from dfmeta.export.student import PROVENANCE_KEYS, export_student, with_provenance
from dfmeta.graph.parity import Parity, check_parity

__all__ = ["PROVENANCE_KEYS", "Parity", "check_parity", "export_student", "with_provenance"]
