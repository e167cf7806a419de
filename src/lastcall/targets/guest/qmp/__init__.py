"""A guest through QEMU's own monitor (QMP)."""
