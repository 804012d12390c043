"""What goes wrong with zip archives: of images, of arrays, and of other tools' tensors."""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib

# What zipfile raises on a damaged archive or member. RuntimeError is for what it cannot read at all (a later version
# of the format, patched data, strong encryption), ValueError for names that are not the text they claim to be.
ZIP_DAMAGE = (
    OSError,
    ValueError,
    RuntimeError,
    EOFError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)
